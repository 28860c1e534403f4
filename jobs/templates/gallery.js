// The page of `shardtalk gallery`. data.js calls gallery.show once, data-NNN.js call gallery.detail.
// Whatever comes from the rows is set as text, never as HTML.
"use strict";

const gallery = (() => {
  const PAGE_TILES = 60;
  const GROUP = 1000; // rows of a data-NNN.js, thumbnails of a folder
  const base = new URL(".", document.currentScript.src).href;
  const find = (id) => document.getElementById(id);
  const collator = new Intl.Collator(undefined, { numeric: true });

  let rows = []; // all, in the order of the data
  let found = []; // those that match, in the order chosen
  let first = 0; // of `found`, on this page
  let open = -1; // of `found`, in the viewer; -1 while it is closed
  const details = new Map(); // number of a group → promise of its rows
  const arrived = new Map(); // number of a group → what fulfils that promise

  // ---- data

  function show(summary, values) {
    rows = values.map(([id, caption, logProb, tokens, code, message, picture], number) => ({
      number, id, caption, logProb, tokens, code, message, picture,
      perToken: logProb === null || !tokens ? null : logProb / tokens,
      text: `${id}\n${caption ?? ""}\n${code ?? ""}`.toLowerCase(),
    }));
    rows.sort((a, b) => collator.compare(a.id, b.id));
    describe(summary);
    choose();
  }

  function detail(start, values) {
    arrived.get(start / GROUP)(values);
  }

  function loadDetails(row) {
    const group = Math.floor(row.number / GROUP);
    if (!details.has(group)) {
      details.set(group, new Promise((resolve) => {
        arrived.set(group, resolve);
        const script = document.createElement("script");
        script.src = `${base}data-${String(group).padStart(3, "0")}.js`;
        script.onerror = () => resolve([]);
        document.head.append(script);
      }));
    }
    return details.get(group).then((values) => values[row.number % GROUP]);
  }

  // ---- choice and order

  const orders = {
    name: () => 0, // as they are; sorting is stable
    best: (a, b) => (b.perToken ?? -Infinity) - (a.perToken ?? -Infinity) || 0, // two infinities give NaN
    worst: (a, b) => (a.perToken ?? Infinity) - (b.perToken ?? Infinity) || 0,
    errors: (a, b) => (b.code !== null) - (a.code !== null),
  };

  function choose() {
    const words = find("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const onlyErrors = find("only-errors").checked;
    found = rows.filter((row) => (!onlyErrors || row.code !== null) && words.every((word) => row.text.includes(word)));
    found.sort(orders[find("sort").value]);
    turnTo(0);
  }

  function turnTo(start) {
    first = Math.max(0, Math.min(start, found.length - 1));
    first -= first % PAGE_TILES;
    find("tiles").replaceChildren(...found.slice(first, first + PAGE_TILES).map(tile));
    const pages = Math.ceil(found.length / PAGE_TILES);
    find("found").textContent = found.length === rows.length ? "" : found.length
      ? `${count(found.length)} of ${count(rows.length)}` : "Nothing matches";
    find("place").textContent = `${count(first / PAGE_TILES + 1)} of ${count(pages)}`;
    find("pages").hidden = pages < 2;
    find("previous").disabled = first === 0;
    find("next").disabled = first + PAGE_TILES >= found.length;
  }

  function turnBy(pages) {
    const start = first + pages * PAGE_TILES;
    if (start < 0 || start >= found.length) return;
    turnTo(start);
    window.scrollTo(0, 0);
  }

  // ---- elements

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  const count = (number) => number.toLocaleString("en");
  const score = (number) => (number === null ? "–" : number.toFixed(2).replace("-", "−"));

  function describe(summary) {
    const errors = Object.entries(summary.errors);
    const failed = errors.reduce((sum, [, rowsOfIt]) => sum + rowsOfIt, 0);
    const facts = [["captions", count(summary.total - failed)], ["errors", count(failed)]];
    if (rows.length < summary.total) facts.unshift(["shown, a sample", count(rows.length)]);
    if (summary.images_per_s) facts.push(["images/s", summary.images_per_s.toFixed(1)]);
    if (summary.captioner) facts.push(["captioner", String(summary.captioner)]);
    find("totals").replaceChildren(...facts.map(([name, value]) =>
      element("div", { className: name === "errors" && failed ? "failed" : "" },
        element("dd", { textContent: value }), element("dt", { textContent: name }))));
    find("totals").title = errors.map(([code, rowsOfIt]) => `${code}: ${count(rowsOfIt)}`).join("\n");
    find("title").textContent = summary.output;
    document.title = `${summary.output} · captions`;
    find("state").hidden = summary.finished;
    find("only-errors").disabled = !rows.some((row) => row.code !== null);
  }

  function thumbnail(row, properties) {
    const number = String(row.number).padStart(6, "0");
    const folder = String(Math.floor(row.number / GROUP)).padStart(3, "0");
    return element("img", { src: `${base}thumbnails/${folder}/${number}.jpg`, alt: row.caption ?? "", ...properties });
  }

  function placeholder(row) {
    const text = row.code === null ? "image not found" : row.code.replaceAll("_", " ");
    return element("span", { className: "placeholder", textContent: text });
  }

  function tile(row, position) {
    const picture = row.picture
      ? thumbnail(row, { loading: "lazy", decoding: "async" })
      : placeholder(row);
    const scores = row.logProb === null ? []
      : [element("span", { className: "score", title: "log-probability, in all and per token",
        textContent: `log-prob ${score(row.logProb)}, ${score(row.perToken)}/token` })];
    const button = element("button", { type: "button", className: row.code === null ? "tile" : "tile failed" },
      element("span", { className: "picture" }, picture),
      element("span", { className: "caption", dir: "auto", textContent: row.caption ?? row.message ?? "" }),
      element("span", { className: "id", dir: "auto", title: row.id, textContent: row.id }),
      ...scores);
    button.addEventListener("click", () => view(first + position));
    return element("li", {}, button);
  }

  // ---- viewer

  function view(position) {
    if (position < 0 || position >= found.length) return;
    open = position;
    const row = found[position];
    const viewer = find("viewer");
    viewer.classList.toggle("failed", row.code !== null);
    viewer.querySelector(".picture").replaceChildren(row.picture ? thumbnail(row) : placeholder(row));
    find("viewer-caption").textContent = row.caption ?? row.message ?? "";
    find("viewer-candidates").replaceChildren();
    find("viewer-previous").disabled = position === 0;
    find("viewer-next").disabled = position === found.length - 1;
    state(row, []);
    loadDetails(row).then((values) => {
      if (values && found[open] === row) complete(row, values);
    });
    if (!viewer.open) viewer.showModal();
  }

  function state(row, more) {
    const facts = [["image", row.id], ...more];
    if (row.logProb !== null) {
      facts.push(["log-probability", score(row.logProb)], ["per token", score(row.perToken)], ["tokens", row.tokens]);
    }
    if (row.code !== null) facts.push(["error", row.code]);
    find("viewer-facts").replaceChildren(...facts.flatMap(([name, value]) =>
      [element("dt", { textContent: name }), element("dd", { dir: "auto", textContent: value })]));
  }

  function complete(row, [shard, index, width, height, candidates]) {
    const inTar = shard.toLowerCase().endsWith(".tar");
    const more = [[inTar ? "shard" : "file", shard]];
    if (inTar) more.push(["sample", count(index)]);
    if (width !== null && height !== null) more.push(["size", `${width} × ${height}`]);
    state(row, more);
    if (candidates.length > 1) {
      find("viewer-candidates").replaceChildren(...candidates.map(([caption, logProb]) =>
        element("li", {}, element("span", { dir: "auto", textContent: caption ?? "" }),
          element("span", { className: "score", textContent: score(logProb) }))));
    }
    if (row.picture && !inTar) enlarge(row, shard);
  }

  // The file itself, where the page is looked at on the machine that has it; the thumbnail stays where it is not.
  function enlarge(row, path) {
    if (location.protocol !== "file:" || !path.startsWith("/")) return;
    const image = element("img", { alt: row.caption ?? "" });
    image.onload = () => {
      if (found[open] === row) find("viewer").querySelector(".picture").replaceChildren(image);
    };
    image.src = `file://${path.split("/").map(encodeURIComponent).join("/")}`;
  }

  function closed() {
    const position = open;
    open = -1;
    if (position < first || position >= first + PAGE_TILES) turnTo(position);
    find("tiles").children[position - first]?.firstElementChild.focus();
  }

  // ---- events

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (open >= 0) {
      if (step) view(open + step);
    } else if (event.target.matches("input, select")) {
      if (event.key === "Escape") event.target.blur();
    } else if (event.key === "/") {
      event.preventDefault();
      find("query").focus();
      find("query").select();
    } else if (step) {
      turnBy(step);
    }
  }

  function listen() {
    find("query").addEventListener("input", choose);
    find("sort").addEventListener("change", choose);
    find("only-errors").addEventListener("change", choose);
    find("controls").addEventListener("submit", (event) => event.preventDefault());
    find("previous").addEventListener("click", () => turnBy(-1));
    find("next").addEventListener("click", () => turnBy(1));
    find("viewer-previous").addEventListener("click", () => view(open - 1));
    find("viewer-next").addEventListener("click", () => view(open + 1));
    find("viewer-close").addEventListener("click", () => find("viewer").close());
    find("viewer").addEventListener("close", closed);
    find("viewer").addEventListener("click", (event) => {
      if (event.target === event.currentTarget) find("viewer").close(); // the backdrop
    });
    document.addEventListener("keydown", onKey);
    window.addEventListener("load", () => {
      if (!rows.length) find("found").textContent = "data.js is missing: keep the page beside its folder of files";
    });
  }

  listen();
  return { show, detail };
})();
