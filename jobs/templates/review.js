// The decisions on captions: one item of localStorage each, so that two tabs on one output do not overwrite each other.
// docs/gallery.md describes the file that is downloaded; pipeline/results/review.py reads it.
"use strict";

const review = (() => {
  const VERSION = 1;
  const decisions = new Map(); // key of a row → its decision
  let prefix = ""; // of the items of this output
  let output = "";
  let problem = ""; // why decisions are lost when the page is closed; empty if they are not

  // Begins with the decisions on the output that `summary` describes.
  function begin(summary) {
    prefix = `shardtalk-review/${summary.id}/`;
    output = summary.output;
    load();
  }

  function load() {
    decisions.clear();
    withStorage((storage) => {
      for (const name of Object.keys(storage).filter((each) => each.startsWith(prefix))) {
        decisions.set(name.slice(prefix.length), JSON.parse(storage.getItem(name)));
      }
    });
  }

  function withStorage(use) {
    try {
      use(window.localStorage); // this alone throws where the browser keeps nothing
      problem = "";
    } catch {
      problem = "This browser does not keep decisions: download them before you close the page.";
    }
  }

  // Returns the decision on a row, or undefined. A decision on another caption than the row has now does not count.
  function of(row) {
    const decision = decisions.get(row.key);
    return decision?.reviewed_caption === row.caption ? decision : undefined;
  }

  const captionOf = (row) => of(row)?.caption ?? row.caption;

  // Returns "kept", "edited", "rejected" or "undecided".
  function state(row) {
    const decision = of(row);
    if (!decision) return "undecided";
    if (decision.decision === "reject") return "rejected";
    return decision.caption === undefined ? "kept" : "edited";
  }

  // Keeps or rejects a row; an earlier edit stays unless there is a new one.
  function decide(row, decision, caption = of(row)?.caption ?? "") {
    const made = { shard: row.shard, index: row.index, image_id: row.id, reviewed_caption: row.caption, decision };
    if (caption) made.caption = caption;
    decisions.set(row.key, made);
    withStorage((storage) => storage.setItem(prefix + row.key, JSON.stringify(made)));
  }

  const asTyped = (text) => text.replace(/\r\n?/g, "\n").trim(); // as a <textarea> has it

  // Keeps a row with another caption; with none, or its own, as it is.
  function edit(row, text) {
    const caption = asTyped(text.toWellFormed?.() ?? text);
    decide(row, "keep", caption === asTyped(row.caption) ? "" : caption);
  }

  function undo(row) {
    decisions.delete(row.key);
    withStorage((storage) => storage.removeItem(prefix + row.key));
  }

  function download() {
    const ordered = [...decisions.keys()].sort().map((key) => decisions.get(key));
    const review = { format: "shardtalk-review", version: VERSION, output, decisions: ordered };
    const url = URL.createObjectURL(new Blob([`${JSON.stringify(review, null, 1)}\n`], { type: "application/json" }));
    elements.element("a", { href: url, download: `${output}-review.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  return {
    begin, load, of, captionOf, state, decide, edit, undo, download,
    isOfThis: (name) => name === null || name.startsWith(prefix), // null: all items were removed
    get problem() { return problem; },
    get size() { return decisions.size; },
  };
})();
