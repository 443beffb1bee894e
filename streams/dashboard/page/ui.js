// Preact with htm bound to it, and the small parts that every tab is built of. Text is always text, never markup.

import htm from "./vendor/htm.js";
import { Fragment, h, render } from "./vendor/preact.js";
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";
import { percent } from "./format.js";

export const html = htm.bind(h);
export { Fragment, render, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };

export const userLink = (userId) => `#/person/${encodeURIComponent(userId)}`;

export function Panel({ id, title, note, aside, children, kind = "" }) {
  return html`
    <section class=${`panel ${kind}`} aria-labelledby=${`${id}-title`} id=${`${id}-panel`}>
      <div class="panel-head">
        <h2 id=${`${id}-title`}>${title}</h2>
        ${note !== undefined && html`<span class="quiet" id=${`${id}-note`}>${note}</span>`}
        ${aside && html`<span class="aside">${aside}</span>`}
      </div>
      ${children}
    </section>`;
}

export const Empty = ({ id, children }) => html`<p class="empty" id=${id}>${children}</p>`;

export const Verdict = ({ word, id, title }) =>
  html`<span class="verdict" id=${id} data-verdict=${word} title=${title}>${word}</span>`;

export const State = ({ word, children }) => html`<span class="state" data-state=${word}>${children ?? word}</span>`;

export const Track = ({ share, kind = "" }) =>
  html`<span class=${`track ${kind}`} aria-hidden="true"><i style=${{ width: percent(Math.max(0, Math.min(1, share))) }} /></span>`;

// A choice among a few words; the chosen one is pressed.
export function Choice({ label, words, chosen, choose }) {
  return html`
    <span class="choice" role="group" aria-label=${label}>
      ${words.map(([word, text]) => html`
        <button type="button" key=${word} aria-pressed=${word === chosen} onClick=${() => choose(word)}>${text ?? word}</button>`)}
    </span>`;
}

// A region that scrolls can be reached and scrolled by keyboard.
export const Scroll = ({ label, children, kind = "" }) =>
  html`<div class=${`scroll ${kind}`} role="region" aria-label=${label} tabindex="0">${children}</div>`;

// Cells carry the column's word, which narrow windows show in front of them.
export const Cell = ({ label, kind, children, title }) =>
  html`<td data-label=${label} class=${kind} title=${title}>${children}</td>`;

export function Head({ columns }) {
  return html`<thead><tr>${columns.map(([text, kind, title]) => html`
    <th scope="col" class=${kind} key=${text}>${title ? html`<abbr title=${title}>${text}</abbr>` : text}</th>`)}</tr></thead>`;
}
