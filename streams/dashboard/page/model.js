// What answers searches, which model serves, and how good the lists are of late.

import { Lines } from "./charts.js";
import { NONE, compact, count, duration, finePercentage, megabytes, milliseconds, rate, share } from "./format.js";
import { useWorkers } from "./live.js";
import { Rules } from "./rules.js";
import { Training } from "./training.js";
import { Cell, Empty, Head, Panel, Track, html } from "./ui.js";

const RECALL_AT_LEFT = 0.8; // the bar shows the upper fifth, where differences matter
const TIERS = { exact: "exact scan", hnsw: "graph + delta" };

export function Model({ frame, history }) {
  const told = useWorkers();
  return html`
    <${Indexes} frame=${frame} />
    <div class="halves">
      <${RecallOverTime} history=${history} frame=${frame} />
      <${Size} history=${history} />
    </div>
    <${Models} frame=${frame} history=${history} />
    <${Training} told=${told} />
    <div class="halves">
      <${Quality} frame=${frame} history=${history} />
      <${Weights} history=${history} />
    </div>
    <${Rules} told=${told} frame=${frame} />`;
}

const COLUMNS = [
  ["Worker"], ["Answers by"], ["Users", "number"],
  ["Recall, live", "", "Share of the exact ten neighbours that canary queries find; the mark is the bar"], ["Graph"],
  ["Delta", "number", "Rows scanned one by one beside the graphs"], ["Segments", "number", "Small graphs beside the base graph"],
  ["Dead", "number", "Rows of the graph whose user is gone"], ["Memory", "number"],
  ["Snapshot", "number", "How long ago the worker saved its memory"],
];

function Indexes({ frame: { indexes, workers } }) {
  const warnings = indexes.flatMap((i) => i.warnings.map((w) => ({ ...w, worker: i.worker })));
  const pending = indexes.reduce((sum, i) => sum + i.figures.erasures_pending, 0);
  const saved = Object.fromEntries(workers.map((w) => [w.worker, w.saved_s_ago]));
  const note = pending ? `${count(pending)} forgotten users leave the graph with the next build` : "";
  return html`
    <${Panel} id="index" title="Index" note=${note}>
      ${warnings.length > 0 && html`
        <ul id="index-warnings" class="warnings" aria-label="What wants attention">${warnings.map((w) => html`
          <li key=${`${w.worker} ${w.trigger}`}><b>${w.trigger}</b><span>${w.sentence}</span>${indexes.length > 1 && html`<span class="quiet"> ${w.worker}</span>`}</li>`)}</ul>`}
      ${indexes.length ? html`
        <table class="wide" aria-labelledby="index-title"><${Head} columns=${COLUMNS} />
          <tbody id="indexes">${indexes.map((i) => html`<${IndexRow} key=${i.worker} worker=${i.worker} f=${i.figures} saved=${saved[i.worker]} />`)}</tbody>
        </table>`
        : html`<${Empty} id="indexes-empty">${workers.length ? "No worker reports its index." : "No workers yet."}<//>`}
    <//>`;
}

function IndexRow({ worker, f, saved }) {
  const graph = f.tier === "hnsw";
  const known = f.recall !== null;
  const title = known ? `the bar is ${share(f.recall_min)}; ${finePercentage(f.self_miss_share)} do not find themselves` : "";
  const note = (text) => html`<span class="quiet block small">${text}</span>`;
  const built = graph ? `built in ${duration(f.build_s)}` : "";
  return html`
    <tr data-key=${worker}>
      <${Cell} label="Worker" kind="name">${worker}<//>
      <${Cell} label="Answers by">${TIERS[f.tier]}${note(graph ? `${count(f.graph_rows)} rows, ef ${f.ef}` : "")}<//>
      <${Cell} label="Users" kind="number">${count(f.users)}<//>
      <${Cell} label="Recall, live" kind="recall" title=${title}><b>${known ? finePercentage(f.recall) : NONE}</b>
        <span class=${`recall-bar ${known && f.recall < f.recall_min ? "low" : ""}`} aria-hidden="true" hidden=${!known}><i style=${{ width: place(f.recall ?? 0) }} /><em style=${{ left: place(f.recall_min) }} /></span>
        ${note(known ? `${count(f.canary_queries)} queries, ${duration(Math.round(f.checked_s_ago))} ago` : "not checked yet")}<//>
      <${Cell} label="Graph" kind="graph">${graph ? `generation ${count(f.generation)}, ${duration(Math.round(f.generation_age_s))} old` : "none"}
        <span class="build-bar" aria-hidden="true" hidden=${!f.building}><i style=${{ width: share(f.build_progress) }} /></span>
        ${note(f.building ? `building the next, ${share(f.build_progress)}` : built)}<//>
      <${Cell} label="Delta" kind="number">${graph ? count(f.delta) : NONE}${note(graph ? `${count(f.moved)} moved` : "")}<//>
      <${Cell} label="Segments" kind="number">${graph ? count(f.segments) : NONE}<//>
      <${Cell} label="Dead" kind="number">${graph ? count(f.dead) : NONE}${note(graph ? share(f.dead_share) : "")}<//>
      <${Cell} label="Memory" kind="number">${megabytes(f.memory_bytes)}<//>
      <${Cell} label="Snapshot" kind="number">${saved === null || saved === undefined ? "none yet" : `${duration(Math.round(saved))} ago`}<//>
    </tr>`;
}

const place = (recall) => `${(100 * Math.max(0, recall - RECALL_AT_LEFT)) / (1 - RECALL_AT_LEFT)}%`;

const times = (moments) => moments.map((m) => m.time);

function RecallOverTime({ history: { moments, markers }, frame }) {
  const values = moments.map((m) => m.recall ?? null);
  const bar = frame.indexes[0]?.figures.recall_min ?? null;
  const low = Math.min(0.9, ...values.filter((v) => v !== null).map((v) => v - 0.02));
  return html`
    <${Panel} id="recall-time" title="Recall over time" note="worst worker; the line is the bar">
      ${values.some((v) => v !== null) && moments.length > 1
        ? html`<${Lines} times=${times(moments)} series=${[{ name: "recall", values }]} format=${finePercentage} markers=${markers} target=${bar} min=${low} top=${1}
            say=${`Live recall, now ${finePercentage(values.filter((v) => v !== null).at(-1))}.`} />`
        : html`<${Empty}>No recall was measured yet: canary queries run once a minute.<//>`}
    <//>`;
}

function Size({ history: { moments } }) {
  const values = moments.map((m) => m.index_users ?? 0);
  return html`
    <${Panel} id="size-time" title="Users in the index" note=${moments.length ? `memory of all workers ${megabytes(moments.at(-1).memory ?? 0)}` : ""}>
      ${moments.length > 1 && values.some(Boolean)
        ? html`<${Lines} times=${times(moments)} series=${[{ name: "users", values }]} format=${compact} say=${`Users in the index, now ${count(values.at(-1))}.`} />`
        : html`<${Empty}>No users in the index yet.<//>`}
    <//>`;
}

const MODEL_COLUMNS = [
  ["Worker"], ["Model in service"], ["Folder"], ["Switches", "number"], ["Last switch", "number"],
  ["Longest pause", "number", "The longest job that the last switch gave the compute thread"],
  ["Same lists", "number", "Overlap@10 of the lists just before and just after the last switch, over a sample of users"], ["Items", "number"],
];

function Models({ frame: { workers }, history: { markers } }) {
  const swaps = markers.filter((m) => m.kind === "model").slice(-3).reverse();
  return html`
    <${Panel} id="models" title="Model">
      ${workers.length ? html`
        <table class="wide" aria-labelledby="models-title"><${Head} columns=${MODEL_COLUMNS} />
          <tbody id="models">${workers.map((w) => html`<${ModelRow} key=${w.worker} w=${w} />`)}</tbody></table>`
        : html`<${Empty}>No workers yet.<//>`}
      ${swaps.length > 0 && html`<ol class="markers">${swaps.map((m) => html`<li key=${m.time}>${m.text}</li>`)}</ol>`}
    <//>`;
}

function ModelRow({ w }) {
  const f = w.folder;
  return html`
    <tr data-key=${w.worker}>
      <${Cell} label="Worker" kind="name">${w.worker}<//>
      <${Cell} label="Model in service"><code>${w.model}</code>${f?.fallback ? html`<span class="bad"> in its place</span>` : null}<//>
      <${Cell} label="Folder">${folderWords(f)}<//>
      <${Cell} label="Switches" kind="number">${f ? `${count(f.switches)}${f.failures ? `, ${count(f.failures)} failed` : ""}` : NONE}<//>
      <${Cell} label="Last switch" kind="number">${f?.switch_s ? duration(f.switch_s) : NONE}<//>
      <${Cell} label="Longest pause" kind="number">${f?.pause_ms ? milliseconds(f.pause_ms) : NONE}<//>
      <${Cell} label="Same lists" kind="number">${f?.overlap ? html`<${Overlap} o=${f.overlap} />` : NONE}<//>
      <${Cell} label="Items" kind="number">${count(w.items)}<//>
    </tr>`;
}

const Overlap = ({ o }) => html`
  <span class="block" data-overlap="neighbours">${share(o.neighbours)} of neighbours</span>
  <span class="block" data-overlap="items">${share(o.items)} of items</span>
  <span class="quiet block small">${count(o.users)} users, after ${o.before}</span>`;

function folderWords(f) {
  if (!f) return "built in";
  if (f.coming) return html`${f.coming} is made ready<${Track} share=${f.progress} />`;
  return f.problem ? html`<span class="bad">${f.problem}</span>` : f.wanted;
}

const FIGURES = [
  ["coverage", "Coverage", "share of the catalogue on the newest lists"],
  ["popularity_share", "Popularity", "share of places that the most shown hundredth of the items on them takes"],
  ["hub_share", "Hubness", "share of neighbour places that the most named hundredth of the users on them takes"],
  ["cold_share", "Cold start", "share of the newest lists that are for users with fewer than five events"],
];

function Quality({ frame, history: { moments } }) {
  const best = frame.workers.map((w) => w.quality).filter(Boolean).sort((a, b) => b.lessons - a.lessons)[0];
  const series = [["hit rate @10", "hit_rate"], ["NDCG@10", "ndcg"]].map(([name, key]) => ({ name, values: moments.map((m) => m[key] ?? null) }));
  const latest = moments.findLast((m) => m.figures)?.figures;
  return html`
    <${Panel} id="quality" title="Quality of lists, live" note=${best ? `predict, then see: ${count(best.lessons)} events judged${best.frozen ? ", weights frozen" : ""}` : ""}>
      ${best ? html`
        <dl class="facts"><div><dt>hit rate @10</dt><dd id="hit-rate">${finePercentage(best.hit_rate)}</dd></div>
          <div><dt>NDCG@10</dt><dd id="ndcg">${best.ndcg.toFixed(3)}</dd></div></dl>` : null}
      ${best && moments.length > 1
        ? html`<${Lines} times=${times(moments)} series=${series} format=${finePercentage} say=${`Hit rate now ${finePercentage(best.hit_rate)}.`} />`
        : html`<${Empty} id="quality-empty">No list was judged yet: that takes a user's next event.<//>`}
      ${latest?.lists ? html`
        <h3>The newest ${count(latest.lists)} lists</h3>
        <dl class="facts" id="figures">${FIGURES.map(([key, name, title]) => html`
          <div key=${key} title=${title}><dt>${name}</dt><dd data-figure=${key}>${finePercentage(latest[key])}</dd></div>`)}</dl>` : null}
    <//>`;
}

function Weights({ history: { moments } }) {
  const sources = [...new Set(moments.flatMap((m) => Object.keys(m.weights ?? {})))];
  const series = sources.map((name) => ({ name, values: moments.map((m) => m.weights?.[name] ?? null) }));
  const last = moments.at(-1)?.weights ?? {};
  const words = Object.entries(last).sort((a, b) => b[1] - a[1]).slice(0, 3).map(([name, w]) => `${name} ${rate(w)}`).join(", ");
  return html`
    <${Panel} id="weights" title="Weights of the sources" note="learned from what users do next; for all users alike">
      ${sources.length && moments.length > 1
        ? html`<${Lines} times=${times(moments)} series=${series} format=${(v) => v.toFixed(1)} height=${240} say=${`Weights of the sources, now most: ${words}.`} />`
        : html`<${Empty} id="weights-empty">Nothing was learned of the sources yet.<//>`}
    <//>`;
}
