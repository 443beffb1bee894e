// The little that is needed to write a document by hand. Text always goes in as text, never as HTML.

export const byId = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export function show(node, visible) {
  node.hidden = !visible;
}

// A table row from pairs of the cell's label, which narrow windows show, and its class.
export function row(labels) {
  const cells = labels.map(([label, kind]) => el("td", { "data-label": label, class: kind }));
  return el("tr", {}, ...cells);
}

// Keeps one child per item, in the items' order, and touches only what changed: selection and focus survive.
export function keyed(parent, items, keyOf, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = known.get(key);
    known.delete(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const gone of known.values()) gone.remove();
}

const SVG = "http://www.w3.org/2000/svg";

export function sparkline() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "path"));
  return svg;
}

// Values spread over the width, oldest left; the top is the largest of them, at least `topMin`.
export function drawSparkline(svg, values, length, topMin) {
  const top = Math.max(topMin, ...values);
  const x = (i) => (100 * (length - values.length + i)) / (length - 1);
  const y = (value) => 23 - (22 * value) / top;
  const line = values.map((value, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  setAttribute(svg.firstChild, "d", line);
}
