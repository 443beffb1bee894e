// Draws each worker's index: what answers, live recall against its bar, the graph and what is beside it.

import { byId, el, keyed, row, setAttribute, setText, show } from "./dom.js";
import { NONE, count, duration, finePercentage, megabytes, share } from "./format.js";

const CELLS = [
  ["Worker", "name"], ["Answers by", ""], ["Users", "number"], ["Recall, live", "recall"], ["Graph", "graph"],
  ["Delta", "number"], ["Segments", "number"], ["Dead", "number"], ["Memory", "number"],
];
const TIERS = { exact: "exact scan", hnsw: "graph + delta" };
const RECALL_AT_LEFT = 0.8; // the bar shows the upper fifth, where differences matter

export function drawIndexes({ indexes, workers }) {
  keyed(byId("indexes"), indexes, (i) => i.worker, indexRow, drawIndex);
  const warnings = indexes.flatMap((i) => i.warnings.map((w) => ({ ...w, worker: i.worker })));
  keyed(byId("index-warnings"), warnings, (w) => `${w.worker} ${w.trigger}`, warningLine, (li, w) => {
    setText(li.children[1], w.sentence);
    setText(li.children[2], indexes.length > 1 ? ` ${w.worker}` : "");
  });
  const empty = byId("indexes-empty");
  show(empty, indexes.length === 0);
  setText(empty, workers.length === 0 ? "No workers yet." : "No worker reports its index.");
  const pending = indexes.reduce((sum, i) => sum + i.figures.erasures_pending, 0);
  setText(byId("index-note"), pending ? `${count(pending)} forgotten users leave the graph with the next build` : "");
}

function indexRow() {
  const tr = row(CELLS);
  const note = () => el("span", { class: "quiet block small" });
  const bar = (kind, ...marks) => el("span", { class: kind, "aria-hidden": "true" }, el("i"), ...marks);
  tr.cells[3].append(el("b"), bar("recall-bar", el("em")), note());
  tr.cells[4].append(el("span"), bar("build-bar"), note());
  for (const cell of [1, 5, 7].map((column) => tr.cells[column])) cell.append(el("span"), note());
  return tr;
}

function drawIndex(tr, { worker, figures: f }) {
  const cells = tr.cells;
  const graph = f.tier === "hnsw";
  setText(cells[0], worker);
  setText(cells[1].firstChild, TIERS[f.tier]);
  setText(cells[1].lastChild, graph ? `${count(f.graph_rows)} rows, ef ${f.ef}` : "");
  setText(cells[2], count(f.users));
  drawRecall(cells[3], f);
  drawGraph(cells[4], f);
  setText(cells[5].firstChild, graph ? count(f.delta) : NONE);
  setText(cells[5].lastChild, graph ? `${count(f.moved)} moved` : "");
  setText(cells[6], graph ? count(f.segments) : NONE);
  setText(cells[7].firstChild, graph ? count(f.dead) : NONE);
  setText(cells[7].lastChild, graph ? share(f.dead_share) : "");
  setText(cells[8], megabytes(f.memory_bytes));
}

function drawRecall(cell, f) {
  const [figure, bar, note] = cell.children;
  const known = f.recall !== null;
  setText(figure, known ? finePercentage(f.recall) : NONE);
  show(bar, known);
  setAttribute(bar, "class", known && f.recall < f.recall_min ? "recall-bar low" : "recall-bar");
  bar.firstChild.style.width = place(f.recall ?? 0);
  bar.lastChild.style.left = place(f.recall_min);
  setText(note, known ? `${count(f.canary_queries)} queries, ${duration(Math.round(f.checked_s_ago))} ago` : "not checked yet");
  setAttribute(cell, "title", known ? `the bar is ${share(f.recall_min)}; ${finePercentage(f.self_miss_share)} do not find themselves` : "");
}

function place(recall) {
  return `${(100 * Math.max(0, recall - RECALL_AT_LEFT)) / (1 - RECALL_AT_LEFT)}%`;
}

function drawGraph(cell, f) {
  const [text, track, note] = cell.children;
  const graph = f.tier === "hnsw";
  setText(text, graph ? `generation ${count(f.generation)}, ${duration(Math.round(f.generation_age_s))} old` : "none");
  show(track, f.building);
  track.firstChild.style.width = share(f.build_progress);
  const built = graph ? `built in ${duration(f.build_s)}` : "";
  setText(note, f.building ? `building the next, ${share(f.build_progress)}` : built);
}

function warningLine({ trigger }) {
  return el("li", {}, el("b", {}, trigger), el("span"), el("span", { class: "quiet" }));
}
