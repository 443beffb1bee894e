// How the model in service came to be, beside the one that it took over from: facts, and curves by step.

import { Lines } from "./charts.js";
import { NONE, count, dayAndMinute, duration } from "./format.js";
import { Empty, Fragment, Panel, html } from "./ui.js";

const NAMES = { "ndcg@10": "NDCG@10", "hr@10": "hit rate @10", rmse: "RMSE" };
const BY_STEP = { name: "step", format: count };

export function Training({ told: { details, error } }) {
  const views = details?.models ?? [];
  const note = "as the model folder tells; validation is on events that were held back";
  return html`
    <${Panel} id="training" title="Training" note=${views.length ? note : ""}>
      ${error && html`<p class="bad" role="alert">${error}</p>`}
      ${views.length ? views.map((view) => html`
        <${Fragment} key=${view.workers.join(" ")}>
          ${views.length > 1 && html`<h3>${view.workers.join(", ")}</h3>`}
          <${Models} models=${view.models} />
        <//>`)
        : html`<${Empty} id="training-empty">${waiting(details)}<//>`}
    <//>`;
}

export function waiting(details) {
  if (details === null) return "Asking…";
  return details.unheard.length ? "Workers tell this every half minute; nothing came yet." : "No worker reports.";
}

function Models({ models }) {
  const trained = models.filter((m) => m.training?.curve);
  return html`
    <div class="halves">${models.map((m, i) => html`<${Facts} key=${m.name} m=${m} word=${i ? "Before it" : "In service"} />`)}</div>
    ${trained.length > 0 && html`<div class="halves"><${Curves} models=${trained} current=${models[0]} /></div>`}`;
}

function Facts({ m, word }) {
  const t = m.training;
  return html`
    <div class="model-facts" data-model=${m.name}>
      <h3>${word}: <code>${m.name}</code></h3>
      ${t === null
        ? html`<p>Built in: a fixed rule makes its vectors of ${m.dim} numbers; it was not trained.</p>`
        : html`<dl class="change">
            <dt>Trained</dt><dd>${t.trained_at === null ? "the folder does not say when" : dayAndMinute(t.trained_at)}${t.cpu_s === null ? "" : `, ${duration(t.cpu_s)} of CPU`}</dd>
            <dt>On</dt><dd>${dataWords(t)}</dd>
            <dt>Chosen by</dt><dd>${metricWords(t)}</dd>
            <dt>Vectors</dt><dd>${m.kind}, ${m.dim} numbers</dd>
          </dl>
          ${t.curve === null && html`<p class="quiet small">No curves: the program that wrote this folder kept none.</p>`}`}
    </div>`;
}

function dataWords(t) {
  if (t.events === null) return "the folder does not say";
  const last = t.last_event_at === null ? "" : `, the last of ${dayAndMinute(t.last_event_at)}`;
  return `${t.source ?? "a log"}: ${count(t.events)} events of ${count(t.users)} users and ${count(t.items)} items${last}`;
}

function metricWords(t) {
  const words = Object.entries(t.metrics).sort().reverse().map(([name, value]) => `${NAMES[name] ?? name} ${value.toFixed(3)}`);
  const step = t.curve?.steps[t.curve.best];
  return `${words.join(", ") || NONE}${step ? ` at step ${count(step)} of ${count(t.curve.steps.at(-1))}` : ""}`;
}

function Curves({ models, current }) {
  const steps = [...new Set(models.flatMap((m) => m.training.curve.steps))].sort((a, b) => a - b);
  const series = (m, name, values, colour) => { // what was before has the same colour, dashed
    const at = new Map(m.training.curve.steps.map((step, i) => [step, values[i]]));
    const before = m !== current;
    return { name: before ? `${name}, before` : name, values: steps.map((step) => at.get(step) ?? null), dashed: before, colour };
  };
  const losses = models.map((m) => series(m, "loss", m.training.curve.losses, 0));
  const names = [...new Set(models.flatMap((m) => Object.keys(m.training.curve.metrics)))];
  const metrics = models.flatMap((m) => names.filter((name) => m.training.curve.metrics[name])
    .map((name) => series(m, NAMES[name] ?? name, m.training.curve.metrics[name], names.indexOf(name))));
  const last = (s) => s.values.findLast((v) => v !== null);
  const ends = (all, digits) => all.map((s) => `${s.name} ${last(s)?.toFixed(digits) ?? NONE}`).join(", ");
  return html`
    <div><h3>Training loss by step</h3>
      <${Lines} times=${steps} by=${BY_STEP} series=${losses} format=${(v) => v.toFixed(2)} min=${null}
        say=${`Training loss by step; at the end ${ends(losses, 2)}.`} /></div>
    <div><h3>Validation by step</h3>
      <${Lines} times=${steps} by=${BY_STEP} series=${metrics} format=${(v) => v.toFixed(2)}
        say=${`Validation by step; at the end ${ends(metrics, 3)}.`} /></div>`;
}
