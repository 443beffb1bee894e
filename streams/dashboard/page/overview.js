// Is it fine? The strip answers in one look; below it where the lag lies, what flows, and how fresh the lists are.

import { HeatMap, Lines } from "./charts.js";
import {
  NONE, clock, compact, count, duration, finePercentage, megabytes, milliseconds, ranges, rate,
} from "./format.js";
import { Cell, Choice, Empty, Head, Panel, Scroll, State, Track, Verdict, html, useState } from "./ui.js";

const TREND = { growing: "↗ growing", shrinking: "↘ shrinking", steady: "→ steady" };
const MARKERS_SHOWN = 6;
const TALL_ROWS = 10;

export function Overview({ frame, history }) {
  return html`
    <${Strip} frame=${frame} />
    <${Lag} frame=${frame} history=${history} />
    <div class="halves">
      <${Throughput} history=${history} />
      <${Batches} frame=${frame} history=${history} />
    </div>
    <${Freshness} frame=${frame} history=${history} />
    <${Workers} frame=${frame} />`;
}

function Tile({ label, children, small, kind = "" }) {
  return html`<div class=${`tile ${kind}`}><h2>${label}</h2><p class="big">${children}</p><p class="small">${small}</p></div>`;
}

function Strip({ frame }) {
  const { group, workers, connection, dead_letters: dead, indexes } = frame;
  const known = !["connecting", "no-topics"].includes(connection.state);
  const users = Math.max(0, ...workers.map((w) => w.index_users));
  const target = frame.freshness_target_ms;
  const quiet = known && group.quiet_s !== null;
  const missed = target > 0 && group.freshness_ms.p99 > target;
  const trend = group.lag === 0 ? "" : `, ${TREND[group.trend]}${group.catch_up_s ? `, ${duration(group.catch_up_s)} to go` : ""}`;
  return html`
    <section id="strip" aria-label="Is it fine?">
      <${Tile} label="Group" small=${html`<span id="verdict-sentence" role="status" class=${group.attention ? "attention" : ""}>${known ? group.sentence : "No figures yet."}</span>`}>
        <${Verdict} id="verdict" word=${known ? group.verdict : "…"} /><//>
      <${Tile} label="Lag" small=${html`<span id="lag-s">${group.lag_s === null ? "age not known yet" : `${duration(group.lag_s)} behind`}</span><span id="lag-trend">${trend}</span>`}>
        <span id="lag">${count(group.lag)}</span><//>
      <${Tile} label="Freshness, p99" kind=${missed ? "missed" : ""} small=${html`p50 <span id="freshness-p50">${milliseconds(group.freshness_ms.p50)}</span>${target ? ` · target ${milliseconds(target)}${missed ? ", missed" : ""}` : ""}`}>
        <span id="freshness-p99">${milliseconds(group.freshness_ms.p99)}</span><//>
      <${Tile} label="Events in, a second" small=${html`${quiet && html`<span id="quiet">none for ${duration(Math.round(group.quiet_s))}</span> · `}<span id="processed-per-s">${rate(group.processed_per_s)}</span> processed`}>
        <span id="events-per-s">${rate(group.events_per_s)}</span><//>
      <${Tile} label="Lists out, a second" small=${html`<span id="index-users">${count(users)}</span> users can be found`}>
        <span id="lists-per-s">${rate(group.lists_per_s)}</span><//>
      <${Tile} label="Dead letters" small=${html`<a href="#/streams" id="dead-top">${deadWords(dead)}</a>`}>
        <span id="dead-total">${count(dead.total)}</span><//>
      <${RecallTile} indexes=${indexes} />
    </section>`;
}

export function deadWords(dead) {
  if (!dead.complete) return "still counting";
  return dead.by_reason.length ? `mostly ${dead.by_reason[0].reason}` : "none";
}

function RecallTile({ indexes }) {
  const known = indexes.filter((i) => i.figures.recall !== null);
  const worst = known.sort((a, b) => a.figures.recall - b.figures.recall)[0]?.figures;
  const low = worst && worst.recall < worst.recall_min;
  const exact = indexes.length > 0 && indexes.every((i) => i.figures.tier === "exact");
  const small = worst ? `bar ${finePercentage(worst.recall_min)}${low ? ", missed" : ""}` : exact ? "exact scan, nothing to miss" : "not checked yet";
  return html`<${Tile} label="Recall, live" kind=${low ? "missed" : ""} small=${html`<a href="#/model">${small}</a>`}>
    <span id="recall">${worst ? finePercentage(worst.recall) : NONE}</span><//>`;
}

function Lag({ frame, history }) {
  const [unit, setUnit] = useState("seconds");
  const { moments, partitions, markers } = history;
  const seconds = unit === "seconds";
  const series = partitions.map((p, row) => ({
    name: `partition ${p}`,
    values: moments.map((m) => (seconds ? m.lag_s[row] : m.lag[row]) ?? null),
  }));
  const worst = Math.max(0, ...moments.flatMap((m) => (seconds ? m.lag_s : m.lag)).map((v) => v ?? 0));
  const format = seconds ? (v) => duration(v) : compact;
  const choice = html`<${Choice} label="Unit of the lag" words=${[["seconds"], ["events"]]} chosen=${unit} choose=${setUnit} />`;
  return html`
    <${Panel} id="partitions" title="Lag by partition" note=${partitionsNote(frame)} aside=${choice}>
      ${moments.length > 1 ? html`<${Lines} times=${moments.map((m) => m.time)} series=${series} format=${format} markers=${markers}
          say=${`Lag of ${partitions.length} partitions over the last ${span(moments)} in ${unit}; at most ${format(worst)}.`} />
        <${Markers} markers=${markers} />`
        : html`<${Empty}>The chart begins with the second step, in a few seconds.<//>`}
      <${PartitionTable} frame=${frame} />
    <//>`;
}

const span = (moments) => duration(Math.round((moments.at(-1).time - moments[0].time) / 1000));

function partitionsNote({ partitions, polled_at: polledAt, now }) {
  const old = polledAt === null ? null : Math.round((now - polledAt) / 1000);
  return partitions.length ? `${partitions.length} partitions${old > 3 ? `, polled ${duration(old)} ago` : ""}` : "";
}

function Markers({ markers }) {
  const shown = markers.slice(-MARKERS_SHOWN).reverse();
  if (!shown.length) return null;
  return html`<ol class="markers" id="markers" aria-label="What happened">${shown.map((m) => html`
    <li key=${`${m.time} ${m.text}`} data-kind=${m.kind}><time>${clock(m.time)}</time> ${m.text}</li>`)}</ol>`;
}

const PARTITION_COLUMNS = [
  ["Partition"], ["Verdict"], ["Owner"], ["Position", "number"], ["Committed", "number"], ["End", "number"],
  ["Lag", "number"], ["Lag, time", "number"], ["Trend"],
];

function PartitionTable({ frame }) {
  const rows = frame.partitions;
  if (!rows.length) return html`<${Empty} id="partitions-empty">${frame.connection.state === "no-topics" ? "No partitions yet." : "No partitions seen yet."}<//>`;
  const most = Math.max(1, ...rows.map((p) => p.lag));
  const table = html`
    <table class="wide" aria-labelledby="partitions-title">
      <${Head} columns=${PARTITION_COLUMNS} />
      <tbody id="partitions">${rows.map((p) => html`<${PartitionRow} key=${p.partition} p=${p} most=${most} />`)}</tbody>
    </table>`;
  return rows.length > TALL_ROWS ? html`<${Scroll} label="Partitions">${table}<//>` : table;
}

function PartitionRow({ p, most }) {
  return html`
    <tr data-key=${p.partition}>
      <${Cell} label="Partition" kind="name">${p.partition}<//>
      <${Cell} label="Verdict" title=${p.sentence}><${Verdict} word=${p.verdict} /><//>
      <${Cell} label="Owner" kind="owner" title=${p.error ?? p.state ?? ""}>${owner(p)}<//>
      <${Cell} label="Position" kind="number">${count(p.position)}<//>
      <${Cell} label="Committed" kind="number">${p.committed === null ? "none yet" : count(p.committed)}<//>
      <${Cell} label="End" kind="number">${count(p.end)}<//>
      <${Cell} label="Lag" kind="number strong">${count(p.lag)}<//>
      <${Cell} label="Lag, time" kind="number">${p.lag_s === null ? NONE : duration(p.lag_s)}<//>
      <${Cell} label="Trend" kind="trend"><${Track} share=${p.lag / most} /><span>${TREND[p.lag === 0 ? "steady" : p.trend]}</span><//>
    </tr>`;
}

function owner(p) {
  if (p.owner === null) return "nobody";
  const silent = p.owner_silent_s === null ? "" : `, silent for ${duration(Math.round(p.owner_silent_s))}`;
  const state = p.state && p.state !== "running" ? `, ${p.state}` : "";
  return `${p.owner}${silent}${state}`;
}

function Throughput({ history: { moments } }) {
  const types = [...new Set(moments.flatMap((m) => Object.keys(m.by_type ?? {})))].sort();
  const series = types.map((type) => ({ name: type, values: moments.map((m) => m.by_type?.[type] ?? 0) }));
  return html`
    <${Panel} id="throughput" title="Events by type" note="a second">
      ${moments.length > 1 && types.length
        ? html`<${Lines} times=${moments.map((m) => m.time)} series=${series} format=${rate}
            say=${`Events a second by type: ${types.map((t) => `${t} ${rate(moments.at(-1).by_type?.[t] ?? 0)}`).join(", ")}.`} />`
        : html`<${Empty}>No event was processed while this page's server watched.<//>`}
    <//>`;
}

function Batches({ frame, history: { moments } }) {
  const reporting = frame.workers.filter((w) => w.silent_s === null);
  const sum = (name) => reporting.reduce((all, w) => all + w[name], 0);
  const batch = moments.map((m) => m.batch ?? null);
  return html`
    <${Panel} id="batches" title="Batch size" note="events of a batch, mean">
      ${moments.length > 1 && batch.some((b) => b !== null)
        ? html`<${Lines} times=${moments.map((m) => m.time)} series=${[{ name: "events a batch", values: batch }]} format=${rate}
            say=${`Mean events of a batch over the last ${span(moments)}.`} />`
        : html`<${Empty}>No batch was committed while this page's server watched.<//>`}
      <dl class="facts">
        <div><dt>owed lists</dt><dd id="owed">${count(sum("owed"))}</dd></div>
        <div><dt>shed since the start</dt><dd id="shed">${count(sum("shed"))}</dd></div>
        <div><dt>refreshes answered by another list</dt><dd id="coalesced">${count(sum("coalesced"))}</dd></div>
      </dl>
    <//>`;
}

function Freshness({ frame, history: { moments, edges_ms: edges } }) {
  const counts = moments.map((m) => m.freshness ?? []);
  const some = counts.some((column) => column.some(Boolean));
  const { p50, p99 } = frame.group.freshness_ms;
  return html`
    <${Panel} id="freshness" title="Freshness over time" note="event sent to list committed; the stronger the colour, the more lists; the line is the target">
      ${some && moments.length > 1
        ? html`<${HeatMap} times=${moments.map((m) => m.time)} counts=${counts} edges=${edges} format=${milliseconds} target=${frame.freshness_target_ms}
            say=${`Freshness of lists over the last ${span(moments)}: now p50 ${milliseconds(p50)}, p99 ${milliseconds(p99)}.`} />`
        : html`<${Empty} id="freshness-empty">No list was published while this page's server watched.<//>`}
    <//>`;
}

const WORKER_COLUMNS = [
  ["Worker"], ["State"], ["Last report"], ["Partitions"], ["Events/s", "number"], ["Lists/s", "number"],
  ["p50 / p99", "number"], ["Memory", "number"], ["Time of a batch, by stage"],
];

function Workers({ frame }) {
  return html`
    <${Panel} id="workers" title="Workers">
      ${frame.workers.length ? html`
        <table class="wide" aria-labelledby="workers-title">
          <${Head} columns=${WORKER_COLUMNS} />
          <tbody id="workers">${frame.workers.map((w) => html`<${WorkerRow} key=${w.worker} w=${w} />`)}</tbody>
        </table>`
        : html`<${Empty} id="workers-empty">No workers yet. Start one with <code>nearstream worker</code>.<//>`}
    <//>`;
}

function WorkerRow({ w }) {
  const silent = w.silent_s !== null;
  const stopped = w.state === "stopped";
  return html`
    <tr data-key=${w.worker}>
      <${Cell} label="Worker" kind="name">${w.web_url ? html`<a href=${w.web_url}>${w.worker}</a>` : w.worker}
        ${w.restarts ? html`<span class="quiet block small">${w.restarts} restarts from the log</span>` : null}<//>
      <${Cell} label="State" title=${w.message ?? ""}><${State} word=${silent ? "silent" : w.state} />
        ${w.message ? html`<span class="quiet block small">${w.message}</span>` : null}<//>
      <${Cell} label="Last report">${silent ? `silent for ${duration(Math.round(w.silent_s))}` : `${duration(Math.round(w.age_s))} ago`}<//>
      <${Cell} label="Partitions">${ranges(w.partitions)}<//>
      <${Cell} label="Events/s" kind="number">${silent || stopped ? NONE : rate(w.events_per_s)}<//>
      <${Cell} label="Lists/s" kind="number">${silent || stopped ? NONE : rate(w.lists_per_s)}<//>
      <${Cell} label="p50 / p99" kind="number">${milliseconds(w.freshness_ms.p50)} / ${milliseconds(w.freshness_ms.p99)}<//>
      <${Cell} label="Memory" kind="number">${megabytes(w.rss_bytes)}<//>
      <${Cell} label="Stages" kind="stages"><${Stages} stages=${w.stages_ms} /><//>
    </tr>`;
}

function Stages({ stages }) {
  const times = Object.entries(stages);
  const sum = times.reduce((all, [, ms]) => all + ms, 0);
  if (!sum) return html`<span class="quiet">no batch lately</span>`;
  return html`
    <span class="stage-bar" aria-hidden="true">${times.map(([name, ms]) => html`<i key=${name} style=${{ flexGrow: ms }} />`)}</span>
    <span class="stage-text">${times.map(([name, ms]) => html`<span key=${name}><i aria-hidden="true" />${name} <b>${milliseconds(ms)}</b></span>`)}</span>`;
}
