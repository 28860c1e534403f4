// The rows of a page of the gallery, as tiles or as a table. Each has a link that opens it in the viewer.
"use strict";

const views = (() => {
  const { element, percent, picture } = elements;

  // A row's address on this page; `shard` and `index` only where its name does not suffice.
  const href = (row) => `#${new URLSearchParams(row.isUnique
    ? { image: row.id } : { image: row.id, shard: row.shard, index: row.index })}`;

  // A calibrated confidence is the probability that a caption is right: below one half, it is rather wrong.
  const confidence = (row) => (row.confidence < 0.5 ? `unsure, ${percent(row.confidence)}` : percent(row.confidence));

  function badge(row) {
    const state = review.state(row);
    return state === "undecided" ? [] : [element("span", { className: `decision ${state}`, textContent: state })];
  }

  function tile(row) {
    const scores = row.confidence === null ? []
      : [element("span", { className: "score", textContent: `confidence: ${confidence(row)}` })];
    return element("li", {},
      element("a", { href: href(row), className: row.code === null ? "tile" : "tile failed" },
        element("span", { className: "picture" }, picture(row, { loading: "lazy", decoding: "async" })),
        element("span", { className: "caption", dir: "auto", textContent: review.captionOf(row) ?? row.message ?? "" }),
        element("span", { className: "id", dir: "auto", title: row.id, textContent: row.id }),
        ...scores, ...badge(row)));
  }

  function tiles(rows) {
    return element("ul", { id: "tiles" }, ...rows.map(tile));
  }

  const COLUMNS = {
    path: (row) => [element("a", { href: href(row), dir: "auto", textContent: row.id })],
    caption: (row) => [element("span", { dir: "auto", textContent: review.captionOf(row) ?? "" }), ...badge(row)],
    confidence: (row) => (row.confidence === null ? [] : [confidence(row)]),
    error: (row) => (row.code === null ? [] : [element("span", { className: "code", textContent: row.code }),
      element("span", { className: "quiet", dir: "auto", textContent: row.message ?? "" })]),
  };

  // `order` is { column, descending }; `sort(column)` is called by the column's heading.
  function table(rows, columns, order, sort) {
    const heading = (column) => {
      const button = element("button", { type: "button", textContent: column });
      button.addEventListener("click", () => sort(column));
      const cell = element("th", { scope: "col", className: column }, button);
      if (order.column === column) cell.ariaSort = order.descending ? "descending" : "ascending";
      return cell;
    };
    const line = (row) => element("tr", { className: row.code === null ? "" : "failed" },
      ...columns.map((column) => element("td", { className: column }, ...COLUMNS[column](row))));
    return element("table", {},
      element("caption", { className: "hidden", textContent: "Images and captions" }),
      element("thead", {}, element("tr", {}, ...columns.map(heading))),
      element("tbody", {}, ...rows.map(line)));
  }

  return { href, confidence, tiles, table };
})();
