// Which business rules are in force, what is wrong with the file, and how often a list had to stay short.

import { count, dayAndMinute, finePercentage } from "./format.js";
import { waiting } from "./training.js";
import { Empty, Fragment, Panel, State, html } from "./ui.js";

const SHORT = {
  "catalogue-exhausted": "the catalogue has nothing more for the reader",
  rules: "rules take items out",
  fatigue: "items pause that were shown often",
  caps: "more would break a cap",
};

export function Rules({ told: { details, error }, frame }) {
  const views = details?.rules ?? [];
  return html`
    <${Panel} id="rules" title="Business rules" note="the setting rules names the file; docs/rules.md says what its tables mean">
      ${error && html`<p class="bad" role="alert">${error}</p>`}
      ${views.length ? views.map((view) => html`
        <${Fragment} key=${view.workers.join(" ")}>
          ${views.length > 1 && html`<h3>${view.workers.join(", ")}</h3>`}
          ${view.rules === null
            ? html`<${Empty} id="rules-none">No file is named: lists are as the ranking makes them.<//>`
            : html`<${File} rules=${view.rules} />`}
        <//>`)
        : html`<${Empty} id="rules-empty">${waiting(details)}<//>`}
      <${ShortLists} frame=${frame} />
    <//>`;
}

function File({ rules: r }) {
  const word = r.problem ? "refused" : r.loaded_at === null ? "waiting" : "in force";
  return html`
    <p class="rules-file"><${State} word=${word === "in force" ? "running" : word}>${word}<//> <code>${r.path}</code>
      <span class="quiet">${r.loaded_at === null ? "never loaded" : `loaded ${dayAndMinute(r.loaded_at)}`}${r.problem ? `, refused ${dayAndMinute(r.checked_at)}` : ""}</span></p>
    ${r.problem && html`<pre class="raw bad" id="rules-problem" tabindex="0" role="region" aria-label="What is wrong with the rules file">${r.problem}</pre>
      <p class="quiet small">${r.loaded_at === null ? "No rules serve." : "Until it is mended the rules of before serve:"}</p>`}
    ${r.warnings.length > 0 && html`<ul class="warnings" id="rules-warnings" aria-label="Warnings of the rules file">${r.warnings.map((text) => html`
      <li key=${text}><b>warning</b><span>${text}</span></li>`)}</ul>`}
    ${r.sentences.length
      ? html`<ol class="rules" id="rules-sentences">${r.sentences.map((s, i) => html`
          <li key=${i}>${s.table ? html`<span class="chip">${s.table}</span>` : html`<span />`}<span>${s.text}</span></li>`)}</ol>`
      : r.loaded_at !== null && html`<${Empty}>The file has no rules.<//>`}`;
}

function ShortLists({ frame: { workers } }) {
  const reporting = workers.filter((w) => w.silent_s === null);
  const lists = reporting.reduce((sum, w) => sum + w.lists, 0);
  const counts = {};
  for (const w of reporting) for (const [why, n] of Object.entries(w.short_lists)) counts[why] = (counts[why] ?? 0) + n;
  const rows = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  const sum = rows.reduce((all, [, n]) => all + n, 0);
  return html`
    <h3>Short lists</h3>
    <p id="short-lists">${lists === 0 ? "No list was published yet." : `${count(sum)} of ${count(lists)} lists since the workers' start had fewer items than asked for (${finePercentage(sum / lists)}).`}</p>
    ${rows.length > 0 && html`<dl class="facts">${rows.map(([why, n]) => html`
      <div key=${why}><dt>${SHORT[why] ?? why}</dt><dd data-short=${why}>${count(n)}</dd></div>`)}</dl>`}`;
}
