// Charts over the last hour: uPlot with this page's colours, its own legend, and words for those who cannot see it.

import { clock, minute } from "./format.js";
import { html, useEffect, useRef, useState } from "./ui.js";

const TOOLTIP_ROWS = 6;
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3]];
const SYNC = uPlot.sync("hour");
const dark = matchMedia("(prefers-color-scheme: dark)");

// After Okabe and Ito: told apart with every common colour blindness; beyond eight the dash tells.
const colours = () => {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return {
    series: Array.from({ length: 8 }, (_, i) => of(`--series-${i + 1}`)),
    text: of("--quiet"), line: of("--line"), mark: of("--rewind"), target: of("--bad"),
    heat: of("--heat"), ground: of("--panel"),
  };
};

function useScheme() {
  const [scheme, setScheme] = useState(dark.matches);
  useEffect(() => {
    const changed = () => setScheme(dark.matches);
    dark.addEventListener("change", changed);
    return () => dark.removeEventListener("change", changed);
  }, []);
  return scheme;
}

const axis = (palette, more) => ({
  stroke: palette.text, font: "12px system-ui, sans-serif", grid: { stroke: palette.line, width: 1 },
  ticks: { show: false }, ...more,
});

const timeAxis = (palette) => axis(palette, {
  values: (_, splits) => splits.map((s) => (splits.length > 1 && splits[1] - splits[0] < 60 ? clock : minute)(1000 * s)),
  space: 90, size: 28,
});

const numberAxis = (palette, format) => axis(palette, { values: (_, splits) => splits.map(format), space: 90, size: 28 });

// Builds a plot once for what cannot change in it, and feeds it data afterwards.
function usePlot(build, data, parts) {
  const box = useRef(null);
  const plot = useRef(null);
  const scheme = useScheme();
  useEffect(() => {
    const made = new uPlot(build(box.current.clientWidth), data, box.current);
    plot.current = made;
    const watcher = new ResizeObserver(() => {
      const width = box.current?.clientWidth ?? 0;
      if (width && width !== made.width) made.setSize({ width, height: made.height });
    });
    watcher.observe(box.current);
    return () => {
      watcher.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [scheme, ...parts]);
  useEffect(() => plot.current?.setData(data));
  return [box, plot];
}

function drawMarkers(u, markers, colour) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const { time, kind } of markers) {
    const x = u.valToPos(time / 1000, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.fillText({ rebalance: "⇄", restart: "↻", silent: "■", model: "◆" }[kind], x + 2 * devicePixelRatio, bbox.top + 11 * devicePixelRatio);
  }
  ctx.restore();
}

// Where the cursor is, in words: the time, what happened then, and the largest values.
function tooltip(words) {
  let tip;
  return {
    hooks: {
      init: (u) => {
        tip = document.createElement("div");
        tip.className = "tooltip";
        tip.hidden = true;
        u.over.append(tip);
        u.over.addEventListener("mouseleave", () => { tip.hidden = true; });
      },
      setCursor: (u) => {
        const { idx, left } = u.cursor;
        const lines = idx === null || idx === undefined || left < 0 || !u.over.matches(":hover") ? [] : words(u, idx);
        tip.hidden = lines.length === 0;
        if (tip.hidden) return;
        tip.replaceChildren(...lines.map((text, i) => {
          const line = document.createElement(i ? "span" : "b");
          line.textContent = text;
          return line;
        }));
        tip.style.left = `${left + (left > u.over.clientWidth / 2 ? -tip.offsetWidth - 12 : 12)}px`;
      },
    },
  };
}

// Lines over time. `series` is [{name, values}]; `say` is the sentence that stands for the picture. With `by`, as
// {name, format}, `times` are numbers of something else, such as steps, and gaps are drawn across.
export function Lines({ times, series, format, say, height = 170, markers = [], target = null, top = null, min = 0, by = null }) {
  const data = [by ? times : times.map((t) => t / 1000), ...series.map((s) => s.values)];
  const latest = useRef({});
  latest.current = { series, markers, format, target, by };
  const build = (width) => {
    const palette = colours();
    return {
      width, height, legend: { show: false }, padding: [10, 8, 0, 0],
      cursor: { ...(by ? {} : { sync: { key: SYNC.key, setSeries: false } }), points: { size: 5 }, drag: { x: false, y: false } },
      scales: { x: { time: !by }, y: { range: (_, low, high) => [min ?? low ?? 0, top ?? Math.max(nice(high), target ?? 0) ] } },
      axes: [by ? numberAxis(palette, by.format) : timeAxis(palette), axis(palette, { size: 62, values: (_, splits) => splits.map(latest.current.format) })],
      series: [{}, ...series.map((s, i) => ({
        label: s.name, stroke: palette.series[(s.colour ?? i) % 8], dash: s.dashed ? DASHES[1] : DASHES[Math.floor(i / 8) % 4], spanGaps: Boolean(by),
        width: series.length > 16 ? 1 : 1.75, points: { show: times.length < 2 || Boolean(by), size: 4 },
      }))],
      plugins: [tooltip((u, i) => tipLines(u, i, latest.current))],
      hooks: {
        draw: [(u) => {
          drawMarkers(u, latest.current.markers, palette.mark);
          if (latest.current.target !== null) drawLevel(u, latest.current.target, palette.target);
        }],
      },
    };
  };
  const [box] = usePlot(build, data, [series.map((s) => s.name).join("\n"), height, times.length < 2]);
  return html`
    <figure class="chart" role="img" aria-label=${say}>
      <div ref=${box} />
      ${series.length > 1 && series.length <= 16 && html`
        <ul class="legend" aria-hidden="true">${series.map((s, i) => html`
          <li key=${s.name}><i class=${`series-${((s.colour ?? i) % 8) + 1} dash-${s.dashed ? 1 : Math.floor(i / 8) % 4}`} />${s.name}</li>`)}</ul>`}
    </figure>`;
}

const nice = (high) => (high === null || high === undefined || high <= 0 ? 1 : high * 1.08);

function tipLines(u, i, { series, markers, format, by }) {
  const time = u.data[0][i];
  const here = series.map((s) => [s.name, s.values[i]]).filter(([, v]) => v !== null && v !== undefined);
  here.sort((a, b) => b[1] - a[1]);
  const more = here.length - TOOLTIP_ROWS;
  return [
    by ? `${by.name} ${by.format(time)}` : clock(1000 * time),
    ...markers.filter((m) => Math.abs(m.time / 1000 - time) < 5).slice(0, 2).map((m) => m.text),
    ...here.slice(0, TOOLTIP_ROWS).map(([name, value]) => `${name}: ${format(value)}`),
    ...(more > 0 ? [`and ${more} more`] : []),
  ];
}

function drawLevel(u, value, colour) {
  const y = u.valToPos(value, "y", true);
  u.ctx.save();
  u.ctx.strokeStyle = colour;
  u.ctx.lineWidth = devicePixelRatio;
  u.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  u.ctx.beginPath();
  u.ctx.moveTo(u.bbox.left, y);
  u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
  u.ctx.stroke();
  u.ctx.restore();
}

// How many lists took how long, over time: the stronger the colour, the more of the moment's lists. Rows are buckets.
export function HeatMap({ times, counts, edges, format, say, height = 230, target = 0 }) {
  const data = [times.map((t) => t / 1000), times.map(() => null)];
  const latest = useRef({});
  latest.current = { counts, edges, format, target, times };
  const rows = edges.length + 1;
  const build = (width) => {
    const palette = colours();
    const labelled = edges.map((_, i) => i + 1).filter((i) => i % 2 === 0);
    return {
      width, height, legend: { show: false }, padding: [8, 8, 0, 0],
      cursor: { sync: { key: SYNC.key, setSeries: false }, points: { show: false }, drag: { x: false, y: false } },
      scales: { y: { range: [0, rows] } },
      axes: [
        timeAxis(palette),
        axis(palette, { size: 62, splits: () => labelled, values: (_, s) => s.map((i) => format(edges[i - 1])), grid: { show: false } }),
      ],
      series: [{}, {}],
      plugins: [tooltip((u, i) => heatLines(u, i, latest.current))],
      hooks: { draw: [(u) => drawHeat(u, latest.current, palette)] },
    };
  };
  const [box] = usePlot(build, data, [rows, height]);
  return html`<figure class="chart" role="img" aria-label=${say}><div ref=${box} /></figure>`;
}

function drawHeat(u, { counts, times, edges, target }, palette) {
  const { ctx, bbox } = u;
  const step = times.length > 1 ? (times.at(-1) - times[0]) / (times.length - 1) / 1000 : 5;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = palette.heat;
  counts.forEach((column, i) => {
    const most = Math.max(1, ...column);
    const right = u.valToPos(times[i] / 1000, "x", true);
    const left = u.valToPos(times[i] / 1000 - step, "x", true);
    column.forEach((count, row) => {
      if (!count) return;
      ctx.globalAlpha = 0.12 + 0.88 * Math.sqrt(count / most);
      const top = u.valToPos(row + 1, "y", true);
      ctx.fillRect(left, top, Math.max(1, right - left + 0.5), u.valToPos(row, "y", true) - top - 1);
    });
  });
  ctx.restore();
  const bucket = edges.findIndex((edge) => edge >= target);
  if (target && bucket >= 0) drawLevel(u, bucket + 1, palette.target);
}

function heatLines(u, i, { counts, edges, format, times }) {
  const row = Math.floor(u.posToVal(u.cursor.top, "y"));
  const column = counts[i] ?? [];
  const sum = column.reduce((a, b) => a + b, 0);
  const from = row > 0 ? format(edges[row - 1]) : "0 ms";
  const words = row >= edges.length ? `over ${format(edges.at(-1))}` : `${from} to ${format(edges[row] ?? 0)}`;
  return [clock(times[i]), `${words}: ${column[row] ?? 0} of ${sum} lists`];
}

// A path of points on a plane, the newest filled; `say` stands for the picture.
export function Path({ points, say, height = 220 }) {
  const [at, setAt] = useState(null);
  const width = 300;
  const xs = points.map((p) => p.x), ys = points.map((p) => p.y);
  const span = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys), 1e-6);
  const middle = (values) => (Math.max(...values) + Math.min(...values)) / 2;
  const [cx, cy] = [middle(xs), middle(ys)];
  const room = Math.min(width, height) - 36;
  const place = (p) => [width / 2 + ((p.x - cx) / span) * room, height / 2 - ((p.y - cy) / span) * room];
  const line = points.map((p, i) => `${i ? "L" : "M"}${place(p).map((v) => v.toFixed(1)).join(" ")}`).join("");
  const shown = points[at ?? points.length - 1];
  return html`
    <figure class="path">
      <svg role="img" aria-label=${say} viewBox=${`0 0 ${width} ${height}`} onMouseLeave=${() => setAt(null)}>
        <path d=${line} />
        ${points.map((p, i) => {
          const [x, y] = place(p);
          const last = i === points.length - 1;
          const age = 0.25 + (0.75 * (i + 1)) / points.length;
          return html`<circle key=${p.events} cx=${x} cy=${y} r=${last ? 7 : 4.5} class=${last ? "last" : ""}
            fill-opacity=${last ? 1 : age} onMouseEnter=${() => setAt(i)} />`;
        })}
      </svg>
      <figcaption>After event ${shown.events}: ${shown.item ?? "no item"}${shown.moved ? html`, moved by ${shown.moved.toFixed(3)}` : ""}</figcaption>
    </figure>`;
}
