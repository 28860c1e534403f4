// The page of `shardtalk gallery`: chooses, orders and pages the rows. data.js calls gallery.show once.
"use strict";

const gallery = (() => {
  const PAGE_ROWS = 60;
  const { count, element, facts, find } = elements;
  const collator = new Intl.Collator(undefined, { numeric: true });

  let rows = []; // all, ordered by name
  let found = []; // those that match, in the order chosen
  let first = 0; // of `found`, on this page
  let columns = []; // of the table
  let perToken = []; // log-probabilities per token of all rows, ascending
  let cameByLink = false; // whether the viewer was opened by a link on this page, so that going back closes it

  // ---- data

  function show(summary, values) {
    rows = values.map(([id, shard, index, caption, logProb, tokens, confidence, code, message, picture], number) => ({
      number, id, shard, index, caption, logProb, tokens, confidence, code, message, picture,
      key: JSON.stringify([shard, index, id]),
      perToken: logProb === null || !tokens ? null : logProb / tokens,
      text: `${id}\n${caption ?? ""}\n${code ?? ""}`.toLowerCase(),
    }));
    const names = new Map();
    for (const { id } of rows) names.set(id, (names.get(id) ?? 0) + 1);
    for (const row of rows) row.isUnique = names.get(row.id) === 1;
    rows.sort((a, b) => collator.compare(a.id, b.id));
    perToken = rows.map((row) => row.perToken).filter((value) => value !== null).sort((a, b) => a - b);
    columns = ["path", "caption", ...(summary.has_confidence ? ["confidence"] : []), "error"];
    review.begin(summary);
    describe(summary);
    offerOrders(summary.has_confidence ? "confidence" : "probability");
    choose();
    follow();
  }

  function describe(summary) {
    const errors = Object.entries(summary.errors);
    const failed = errors.reduce((sum, [, rowsOfIt]) => sum + rowsOfIt, 0);
    const totals = [["captions", count(summary.total - failed)], ["errors", count(failed)]];
    if (rows.length < summary.total) totals.unshift(["shown, a sample", count(rows.length)]);
    if (summary.images_per_s) totals.push(["images/s", summary.images_per_s.toFixed(1)]);
    if (summary.captioner) totals.push(["captioner", String(summary.captioner)]);
    find("totals").replaceChildren(...totals.map((fact) =>
      element("div", { className: fact[0] === "errors" && failed ? "failed" : "" }, ...facts([fact]))));
    find("totals").title = errors.map(([code, rowsOfIt]) => `${code}: ${count(rowsOfIt)}`).join("\n");
    find("title").textContent = summary.output;
    document.title = `${summary.output} · captions`;
    find("state").hidden = summary.finished;
  }

  // A log-probability alone means little, and no threshold is right for all captioners: it is compared.
  function rank(row) {
    const less = perToken.filter((value) => value < row.perToken).length;
    return perToken.length < 2 ? "" : `per word, higher than for ${count(less)} of the ${count(perToken.length - 1)} other captions`;
  }

  // ---- choice and order

  const filters = {
    all: () => true,
    errors: (row) => row.code !== null,
    ...Object.fromEntries(["undecided", "kept", "edited", "rejected"].map((state) =>
      [state, (row) => review.state(row) === state])),
  };

  // Rows without the value come last, whatever the direction; sorting is stable, so equal ones stay ordered by name.
  const values = {
    path: (row) => row.id,
    caption: (row) => review.captionOf(row),
    probability: (row) => row.perToken,
    confidence: (row) => row.confidence,
    error: (row) => row.code,
  };

  function compare(column, descending) {
    const value = values[column];
    return (a, b) => {
      const [one, other] = [value(a), value(b)];
      if (one === null || other === null) return (one === null) - (other === null);
      const order = typeof one === "string" ? collator.compare(one, other) : one - other || 0; // infinities give NaN
      return descending ? -order : order;
    };
  }

  function offerOrders(score) {
    const names = {
      path: "name, A to Z", "-path": "name, Z to A", caption: "caption, A to Z", "-caption": "caption, Z to A",
      [score]: `${score}, lowest first`, [`-${score}`]: `${score}, highest first`,
      error: "error, A to Z", "-error": "error, Z to A",
    };
    find("sort").replaceChildren(...Object.entries(names).map(([value, textContent]) =>
      element("option", { value, textContent })));
  }

  function order() {
    const [, minus, column] = /^(-?)(.*)$/.exec(find("sort").value);
    return { column, descending: minus !== "" };
  }

  // By the heading of a column: ascending, then descending.
  function sortBy(column) {
    find("sort").value = find("sort").value === column ? `-${column}` : column;
    choose();
    find("rows").querySelector(`th.${column} button`).focus();
  }

  function choose() {
    const words = find("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const isShown = filters[find("shown").value];
    const has = (row, word) => row.text.includes(word) || review.of(row)?.caption?.toLowerCase().includes(word);
    found = rows.filter((row) => isShown(row) && words.every((word) => has(row, word)));
    const { column, descending } = order();
    found.sort(compare(column, descending));
    turnTo(0);
  }

  function turnTo(start) {
    first = Math.max(0, Math.min(start, found.length - 1));
    first -= first % PAGE_ROWS;
    paint();
    const pages = Math.ceil(found.length / PAGE_ROWS);
    find("found").textContent = found.length === rows.length ? "" : found.length
      ? `${count(found.length)} of ${count(rows.length)}` : "Nothing matches";
    find("place").textContent = `${count(first / PAGE_ROWS + 1)} of ${count(pages)}`;
    find("pages").hidden = pages < 2;
    find("previous").disabled = first === 0;
    find("next").disabled = first + PAGE_ROWS >= found.length;
  }

  function turnBy(pages) {
    const start = first + pages * PAGE_ROWS;
    if (start < 0 || start >= found.length) return;
    turnTo(start);
    window.scrollTo(0, 0);
  }

  function paint() {
    const shown = found.slice(first, first + PAGE_ROWS);
    find("rows").replaceChildren(find("view").value === "table"
      ? views.table(shown, columns, order(), sortBy) : views.tiles(shown));
    countDecisions();
  }

  function countDecisions() {
    const numbers = { kept: 0, edited: 0, rejected: 0, undecided: 0 };
    for (const row of rows) numbers[review.state(row)] += 1;
    find("review-counts").textContent = Object.entries(numbers)
      .map(([state, number]) => `${count(number)} ${state === "undecided" ? "to review" : state}`).join(" · ");
    find("download").disabled = review.size === 0;
    find("review-problem").textContent = review.problem;
  }

  // ---- links to an image, as `views.href` makes them

  function follow() {
    const linked = new URLSearchParams(location.hash.slice(1));
    if (!linked.has("image")) return viewer.hide();
    const row = rows.find((each) => each.id === linked.get("image")
      && (linked.get("shard") ?? each.shard) === each.shard && (linked.get("index") ?? each.index) == each.index);
    if (!row) {
      find("found").textContent = `${linked.get("image")} is not on this page`;
      return viewer.hide();
    }
    if (!found.includes(row)) {
      find("query").value = "";
      find("shown").value = "all";
      choose();
    }
    return viewer.show(row);
  }

  function replaceAddress(href) {
    try {
      history.replaceState(null, "", href);
    } catch { /* Safari throws at the hundredth time within seconds; the address is then late */ }
  }

  const list = {
    neighbour: (row, step) => found[found.indexOf(row) + step],
    rank,
    changed: () => paint(),
    opened: (row) => replaceAddress(views.href(row)),
    closed(row) {
      if (location.hash && cameByLink) history.back();
      else if (location.hash) replaceAddress(location.href.split("#")[0]);
      cameByLink = false;
      const position = found.indexOf(row);
      if (position < first || position >= first + PAGE_ROWS) turnTo(position);
      find("rows").querySelectorAll("li > a, td > a")[position - first]?.focus();
    },
  };

  // ---- events

  function onKey(event) {
    if (viewer.isOpen || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.target.matches("input, select")) {
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
    for (const id of ["shown", "sort"]) find(id).addEventListener("change", choose);
    find("view").addEventListener("change", paint);
    find("controls").addEventListener("submit", (event) => event.preventDefault());
    find("download").addEventListener("click", review.download);
    find("previous").addEventListener("click", () => turnBy(-1));
    find("next").addEventListener("click", () => turnBy(1));
    viewer.listen(list);
    document.addEventListener("keydown", onKey);
    window.addEventListener("hashchange", () => {
      cameByLink ||= !viewer.isOpen;
      follow();
    });
    window.addEventListener("storage", (event) => { // a decision in another tab
      if (!review.isOfThis(event.key)) return;
      review.load();
      paint();
      viewer.refresh();
    });
    window.addEventListener("load", () => {
      if (!rows.length) find("found").textContent = "data.js is missing: keep the page beside its folder of files";
    });
  }

  listen();
  return { show, detail: viewer.detail };
})();
