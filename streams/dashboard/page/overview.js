// Draws a frame of /api/overview: the strip, partitions, workers and dead letters.

import { byId, drawSparkline, el, keyed, row, setAttribute, setText, show, sparkline } from "./dom.js";
import { NONE, count, duration, megabytes, milliseconds, moment, ranges, rate } from "./format.js";
import { drawIndexes } from "./indexes.js";

const TREND = { growing: "↗ growing", shrinking: "↘ shrinking", steady: "→ steady" };
const SPARK_POLLS = 60;
const SPARK_TOP_MIN = 10;
const DEAD_SHOWN = 8;
const SUGGESTIONS_KEPT_MS = 15000; // long enough to read and click one

let suggestedAt = 0;

export function drawOverview(frame) {
  drawStrip(frame);
  drawPartitions(frame);
  drawWorkers(frame);
  drawIndexes(frame);
  drawDeadLetters(frame);
  drawSuggestions(frame);
}

function drawStrip({ group, workers, connection }) {
  const known = connection.state !== "connecting" && connection.state !== "no-topics";
  setText(byId("group-name"), group.name);
  drawVerdict(byId("verdict"), known ? group.verdict : "…");
  setText(byId("verdict-sentence"), known ? group.sentence : "No figures yet.");
  setText(byId("lag"), count(group.lag));
  setText(byId("lag-s"), group.lag_s === null ? "age not known yet" : `${duration(group.lag_s)} behind`);
  setText(byId("lag-trend"), `, ${TREND[group.trend]}${group.catch_up_s ? `, ${duration(group.catch_up_s)} to go` : ""}`);
  setText(byId("events-per-s"), rate(group.events_per_s));
  setText(byId("processed-per-s"), rate(group.processed_per_s));
  setText(byId("lists-per-s"), rate(group.lists_per_s));
  setText(byId("index-users"), count(Math.max(0, ...workers.map((worker) => worker.index_users))));
  setText(byId("freshness-p50"), milliseconds(group.freshness_ms.p50));
  setText(byId("freshness-p99"), milliseconds(group.freshness_ms.p99));
  document.title = known ? `${group.verdict} · ${count(group.lag)} behind · Nearstream` : "Nearstream";
}

function drawVerdict(node, word) {
  setText(node, word);
  setAttribute(node, "data-verdict", word);
}

const PARTITION_CELLS = [
  ["Partition", "number name"], ["Verdict", ""], ["Owner", "owner"], ["Position", "number"], ["Committed", "number"],
  ["End", "number"], ["Lag", "number strong"], ["Lag, time", "number strong"], ["Trend", "trend"],
];

function partitionRow() {
  const tr = row(PARTITION_CELLS);
  tr.cells[1].append(el("span", { class: "verdict" }));
  tr.cells[2].append(el("span"), el("span", { class: "quiet block small" }));
  tr.cells[8].append(sparkline(), el("span"));
  return tr;
}

function drawPartitions({ partitions, connection, polled_at: polledAt, now }) {
  keyed(byId("partitions"), partitions, (p) => p.partition, partitionRow, (tr, p) => {
    const cells = tr.cells;
    setText(cells[0], String(p.partition));
    drawVerdict(cells[1].firstChild, p.verdict);
    setAttribute(cells[1], "title", p.sentence);
    setText(cells[2].firstChild, ownerText(p));
    setText(cells[2].lastChild, p.error ?? (p.verdict === "OK" ? "" : p.sentence));
    setText(cells[3], count(p.position));
    setText(cells[4], p.committed === null ? "none yet" : count(p.committed));
    setText(cells[5], count(p.end));
    setText(cells[6], count(p.lag));
    setText(cells[7], duration(p.lag_s));
    drawSparkline(cells[8].firstChild, p.spark, SPARK_POLLS, SPARK_TOP_MIN);
    setText(cells[8].lastChild, TREND[p.trend]);
  });
  const stale = connection.state === "unreachable" && polledAt;
  setText(byId("partitions-age"), stale ? `as of ${moment(polledAt, now)}` : "");
  const empty = byId("partitions-empty");
  show(empty, partitions.length === 0);
  setText(empty, connection.state === "no-topics" ? "The topics do not exist yet." : "Waiting for Kafka…");
}

function ownerText(p) {
  if (p.owner === null) return "nobody";
  if (p.owner_silent_s !== null) return `${p.owner}, silent for ${duration(Math.round(p.owner_silent_s))}`;
  return p.state === "running" ? p.owner : `${p.owner}, ${p.state}`;
}

const WORKER_CELLS = [
  ["Worker", "name"], ["State", ""], ["Last report", ""], ["Partitions", "owner"], ["Events/s", "number"],
  ["Lists/s", "number"], ["p50 / p99", "number"], ["Memory", "number"], ["Stages", "stages"],
];

function workerRow() {
  const tr = row(WORKER_CELLS);
  tr.cells[1].append(el("span", { class: "state" }), el("span", { class: "quiet block" }));
  tr.cells[8].append(el("span", { class: "stage-bar", "aria-hidden": "true" }), el("span", { class: "stage-text" }));
  return tr;
}

function drawWorkers({ workers, connection }) {
  keyed(byId("workers"), workers, (w) => w.worker, workerRow, (tr, w) => {
    const cells = tr.cells;
    const silent = w.silent_s !== null;
    setText(cells[0], w.worker);
    setText(cells[1].firstChild, silent ? "silent" : w.state);
    setAttribute(cells[1].firstChild, "data-state", silent ? "silent" : w.state);
    setText(cells[1].lastChild, w.message ?? "");
    setText(cells[2], silent ? `silent for ${duration(Math.round(w.silent_s))}` : `${duration(w.age_s)} ago`);
    setText(cells[3], ranges(w.partitions));
    setText(cells[4], silent ? NONE : rate(w.events_per_s));
    setText(cells[5], silent ? NONE : rate(w.lists_per_s));
    const { p50, p99 } = w.freshness_ms;
    setText(cells[6], silent ? NONE : `${milliseconds(p50)} / ${milliseconds(p99)}`);
    setText(cells[7], megabytes(w.rss_bytes));
    drawStages(cells[8], w.stages_ms);
  });
  const empty = byId("workers-empty");
  show(empty, workers.length === 0);
  const waiting = connection.state === "connected" ? "No workers yet. Start one with " : "No workers seen.";
  empty.replaceChildren(waiting, ...(connection.state === "connected" ? [el("code", {}, "nearstream worker"), "."] : []));
}

function drawStages(cell, stages) {
  const entries = Object.entries(stages);
  const total = entries.reduce((sum, [, ms]) => sum + ms, 0);
  const [bar, text] = cell.children;
  keyed(bar, entries, ([name]) => name, () => el("i"), (part, [, ms]) => {
    part.style.flexGrow = total ? ms / total : 0;
  });
  keyed(text, entries, ([name]) => name, ([name]) => el("span", {}, el("i"), `${name} `, el("b")), (part, [, ms]) => {
    setText(part.lastChild, milliseconds(ms));
  });
}

function drawDeadLetters({ dead_letters: dead, connection, now }) {
  setText(byId("dead-total"), count(dead.total));
  setText(byId("dead-top"), dead.by_reason.length ? `mostly ${dead.by_reason[0].reason}` : "none in the topic");
  setText(byId("dead-note"), dead.complete || connection.state !== "connected" ? "" : "still counting…");
  const most = dead.by_reason[0]?.count ?? 1;
  keyed(byId("dead-reasons"), dead.by_reason, (r) => r.reason, reasonBar, (li, r) => {
    setText(li.children[1], count(r.count));
    li.children[2].firstChild.style.width = `${(100 * r.count) / most}%`;
  });
  const last = dead.last.slice(0, DEAD_SHOWN);
  keyed(byId("dead-last"), last, (d) => `${d.topic}/${d.partition}/${d.offset}`, (d) => deadLetter(d, now), () => {});
  const empty = byId("dead-empty");
  show(empty, dead.total === 0);
  setText(empty, dead.complete ? "No dead letters. Every record so far could count." : "Counting…");
}

function reasonBar(r) {
  return el("li", {}, el("span", {}, r.reason), el("b", { class: "number" }), el("span", { class: "bar-track" }, el("i")));
}

function deadLetter(d, now) {
  return el("li", {},
    el("span", { class: "chip" }, d.reason),
    el("span", { class: "quiet" }, `${moment(d.timestamp, now)} · ${d.topic} ${d.partition}:${d.offset} · key ${d.key ?? "missing"}`),
    el("span", { class: "block" }, d.message),
    el("code", { class: "block" }, d.excerpt || "(empty)"));
}

function drawSuggestions({ recent_users: users, now }) {
  show(byId("suggest"), users.length > 0);
  if (now - suggestedAt < SUGGESTIONS_KEPT_MS || byId("suggest").matches(":hover, :focus-within")) return;
  if (users.length > 0) suggestedAt = now;
  byId("suggest-users").replaceChildren(...users.map((user) => (
    el("a", { href: `?user=${encodeURIComponent(user)}`, "data-user": user }, user))));
}
