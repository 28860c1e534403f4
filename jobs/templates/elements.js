// What all parts of the page make elements with. Whatever comes from the rows is set as text, never as HTML.
"use strict";

const elements = (() => {
  const GROUP = 1000; // thumbnails of a folder, rows of a data-NNN.js
  const base = new URL(".", document.currentScript.src).href;

  const find = (id) => document.getElementById(id);
  const count = (number) => number.toLocaleString("en");
  const percent = (share) => `${Math.round(100 * share)}%`;

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // The caption stands beside every picture; as `alt`, too, a screen reader would say it twice.
  const image = (src, properties) => element("img", { src, alt: "", ...properties });

  function picture(row, properties) {
    if (!row.picture) {
      const text = row.code === null ? "image not found" : row.code.replaceAll("_", " ");
      return element("span", { className: "placeholder", textContent: text });
    }
    const number = String(row.number).padStart(6, "0");
    const folder = String(Math.floor(row.number / GROUP)).padStart(3, "0");
    return image(`${base}thumbnails/${folder}/${number}.jpg`, properties);
  }

  // Terms and descriptions of a <dl>.
  const facts = (pairs) => pairs.flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", { dir: "auto", textContent: value })]);

  return { GROUP, base, find, count, percent, element, image, picture, facts };
})();
