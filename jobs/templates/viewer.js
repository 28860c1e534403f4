// The dialog that shows one image, where its caption is kept, rejected or edited.
"use strict";

const viewer = (() => {
  const { base, count, element, facts, find, GROUP, image, picture } = elements;
  const dialog = find("viewer");
  const details = new Map(); // number of a group → promise of its rows
  const arrived = new Map(); // number of a group → what fulfils that promise

  let row = null; // in the dialog; null while it is closed
  let opened = ""; // text of the editor when it was opened
  let list; // of the gallery: neighbour(row, step), rank(row), changed(row), opened(row), closed(row)

  // ---- data-NNN.js, loaded when an image of it is opened

  function detail(start, values) {
    arrived.get(start / GROUP)(values);
  }

  function loadDetails({ number }) {
    const group = Math.floor(number / GROUP);
    if (!details.has(group)) {
      details.set(group, new Promise((resolve) => {
        arrived.set(group, resolve);
        const script = element("script", { src: `${base}data-${String(group).padStart(3, "0")}.js` });
        script.onerror = () => resolve([]);
        document.head.append(script);
      }));
    }
    return details.get(group).then((values) => values[number % GROUP]);
  }

  // ---- what is shown

  function show(shown) {
    leaveEditor();
    row = shown;
    dialog.classList.toggle("failed", row.code !== null);
    dialog.querySelector(".picture").replaceChildren(picture(row));
    find("viewer-candidates").hidden = true;
    find("viewer-previous").disabled = !list.neighbour(row, -1);
    find("viewer-next").disabled = !list.neighbour(row, 1);
    find("edit").disabled = row.code !== null;
    showDecision();
    showFacts([]);
    loadDetails(row).then((values) => {
      if (values && row === shown) showDetails(values);
    });
    if (!dialog.open) dialog.showModal();
  }

  function hide() {
    dialog.close();
  }

  function showDecision() {
    const state = review.state(row);
    find("viewer-caption").textContent = review.captionOf(row) ?? row.message ?? "";
    find("viewer-decision").textContent = state === "undecided" ? "" : state;
    find("viewer-decision").className = `decision ${state}`;
    find("keep").ariaPressed = String(state === "kept" || state === "edited");
    find("reject").ariaPressed = String(state === "rejected");
    find("undo").disabled = state === "undecided";
  }

  function showFacts(more) {
    const known = [["image", row.id]];
    if (review.captionOf(row) !== row.caption) known.push(["captioner's caption", row.caption]);
    if (row.confidence !== null) known.push(["confidence", views.confidence(row)]);
    if (row.perToken !== null) {
      if (list.rank(row)) known.push(["probability", list.rank(row)]);
      known.push(["log-probability", `${number(row.logProb)} in all, for ${count(row.tokens)} tokens`]);
    }
    if (row.code !== null) known.push(["error", row.code]);
    find("viewer-facts").replaceChildren(...facts([...known, ...more]));
  }

  const number = (value) => value.toFixed(2).replace("-", "−");

  function showDetails([width, height, candidates]) {
    const inTar = row.shard.toLowerCase().endsWith(".tar");
    const more = [[inTar ? "shard" : "file", row.shard]];
    if (inTar) more.push(["sample", count(row.index)]);
    if (width !== null && height !== null) more.push(["size", `${width} × ${height}`]);
    showFacts(more);
    find("viewer-candidates").hidden = candidates.length < 2;
    find("viewer-candidates").querySelector("ol").replaceChildren(...candidates.map(([caption]) =>
      element("li", { dir: "auto", textContent: caption ?? "" })));
    if (row.picture && !inTar) enlarge(row);
  }

  // The file itself, where the page is looked at on the machine that has it; the thumbnail stays where it is not.
  function enlarge(shown) {
    if (location.protocol !== "file:" || !/^\/(?!\/)/.test(shown.shard)) return; // two slashes: a host, for Windows
    const whole = image(`file://${shown.shard.split("/").map(encodeURIComponent).join("/")}`);
    whole.onload = () => {
      if (row === shown) dialog.querySelector(".picture").replaceChildren(whole);
    };
  }

  // ---- what is done

  function step(by) {
    const next = list.neighbour(row, by);
    if (!next) return;
    show(next);
    list.opened(next);
  }

  // Shows the next image; the last one stays.
  function decided() {
    const last = row;
    find("announcement").textContent = `${review.state(row)}: ${row.id}`;
    list.changed(row);
    step(1);
    if (row === last) refresh();
  }

  function refresh() {
    if (!row) return;
    showDecision();
    showFacts([]);
    loadDetails(row).then((values) => values && row && showDetails(values));
  }

  function decide(decision) {
    if (!find("editor").hidden) return;
    review.decide(row, decision);
    decided();
  }

  function undo() {
    review.undo(row);
    list.changed(row);
    refresh();
  }

  function edit() {
    if (row.code !== null) return;
    find("edited").value = review.captionOf(row);
    opened = find("edited").value;
    showEditor(true);
    find("edited").select();
  }

  function showEditor(visible) {
    find("editor").hidden = !visible;
    find("viewer-caption").hidden = visible;
    if (!visible && dialog.open) find("edit").focus();
  }

  // Leaving an image while its caption is edited saves the edit: only Cancel and Escape drop it.
  function leaveEditor() {
    if (find("editor").hidden) return;
    if (find("edited").value !== opened) {
      review.edit(row, find("edited").value);
      list.changed(row);
    }
    showEditor(false);
  }

  function save(event) {
    event.preventDefault();
    review.edit(row, find("edited").value);
    showEditor(false);
    decided();
  }

  // ---- events

  const KEYS = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1),
    k: () => decide("keep"), r: () => decide("reject"), e: edit, u: undo,
  };

  function onKey(event) {
    if (!dialog.open || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target === find("edited")) {
      if (event.key === "Enter" && !event.shiftKey) save(event);
      if (event.key === "Escape") {
        event.preventDefault(); // which would close the dialog
        showEditor(false);
      }
      return;
    }
    // On a keyboard without these letters, the keys at their places.
    const key = event.key.charCodeAt(0) < 128 ? event.key : event.code.replace("Key", "");
    const act = KEYS[key.length === 1 ? key.toLowerCase() : key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  function listen(gallery) {
    list = gallery;
    const clicks = {
      keep: KEYS.k, reject: KEYS.r, edit, undo, "editor-cancel": () => showEditor(false),
      "viewer-previous": KEYS.ArrowLeft, "viewer-next": KEYS.ArrowRight, "viewer-close": hide,
    };
    for (const [id, act] of Object.entries(clicks)) find(id).addEventListener("click", act);
    find("editor").addEventListener("submit", save);
    document.addEventListener("keydown", onKey); // the focus leaves a button that becomes disabled, and the dialog
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) hide(); // the backdrop
    });
    dialog.addEventListener("close", () => {
      leaveEditor();
      const shown = row;
      row = null;
      list.closed(shown);
    });
  }

  return { listen, detail, show, hide, refresh, get isOpen() { return dialog.open; } };
})();
