/** Draws the map on a canvas: land, borders, clusters as rings of their states, single sites as their status shape. */
import type { GeoPoint, SiteState } from '../api/types.ts';
import { lookOf, SHAPES, SITE_STATES } from '../lib/status.ts';
import type { Cluster, View } from './geo.ts';
import type { World } from './world.ts';

export interface Colours {
  sea: string;
  land: string;
  line: string;
  panel: string;
  text: string;
  tone: Record<string, string>;
}

export function coloursOf(element: Element): Colours {
  const style = getComputedStyle(element);
  const read = (name: string): string => style.getPropertyValue(name).trim();
  const tones = ['ok', 'busy', 'warn', 'bad', 'off', 'idle', 'info'];
  return {
    sea: read('--sea'),
    land: read('--land'),
    line: read('--land-line'),
    panel: read('--panel'),
    text: read('--text'),
    tone: Object.fromEntries(tones.map((tone) => [tone, read(`--${tone}`)])),
  };
}

const shapeCache = new Map<string, Path2D>();
function shape(data: string): Path2D {
  let path = shapeCache.get(data);
  if (!path) shapeCache.set(data, (path = new Path2D(data)));
  return path;
}

export function radius(size: number): number {
  return size === 1 ? 8 : Math.min(26, 11 + 3.1 * Math.log10(size) * 1.6);
}

interface Scene {
  view: View;
  width: number;
  height: number;
  ratio: number;
  world: World | undefined;
  points: readonly GeoPoint[];
  clusters: readonly Cluster[];
  marked: Cluster | null;
  colours: Colours;
}

export function place(view: View, width: number, height: number, x: number, y: number): [number, number] {
  return [(x - view.x) * view.scale + width / 2, (y - view.y) * view.scale + height / 2];
}

export function paint(context: CanvasRenderingContext2D, scene: Scene): void {
  const { view, width, height, ratio, world, colours } = scene;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = colours.sea;
  context.fillRect(0, 0, width, height);
  if (world) {
    const k = view.scale * ratio;
    context.setTransform(k, 0, 0, k, (width / 2) * ratio - view.x * k, (height / 2) * ratio - view.y * k);
    context.save();
    context.beginPath();
    context.rect(0, 0, 1, 1);
    context.clip();
    context.fillStyle = colours.land;
    context.fill(world.land, 'evenodd');
    context.strokeStyle = colours.line;
    context.lineWidth = 0.8 / view.scale;
    context.stroke(world.borders);
    context.restore();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }
  // Those that need a person are drawn last, on top.
  const visible = scene.clusters.filter((one) => {
    const [x, y] = place(view, width, height, one.x, one.y);
    return x > -30 && y > -30 && x < width + 30 && y < height + 30;
  });
  visible.sort((a, b) => severity(b) - severity(a));
  for (const one of visible) {
    const [x, y] = place(view, width, height, one.x, one.y);
    if (one.members.length === 1) single(context, x, y, scene.points[one.members[0] ?? 0]?.[4] ?? 'pending', colours);
    else many(context, x, y, one, colours);
    if (one === scene.marked) {
      context.strokeStyle = colours.text;
      context.lineWidth = 2;
      context.beginPath();
      context.arc(x, y, radius(one.members.length) + 3, 0, 2 * Math.PI);
      context.stroke();
    }
  }
}

/** The rank of its worst state: 0 needs a person most. */
function severity(one: Cluster): number {
  const rank = SITE_STATES.findIndex((state) => one.states.has(state));
  return rank < 0 ? SITE_STATES.length : rank;
}

function single(context: CanvasRenderingContext2D, x: number, y: number, state: SiteState, colours: Colours): void {
  const look = lookOf(state);
  const { fill, line, dash } = SHAPES[look.shape];
  context.save();
  context.translate(x - 6, y - 6);
  context.lineJoin = 'round';
  context.strokeStyle = colours.panel;
  context.lineWidth = 4;
  context.stroke(shape(fill ?? line ?? ''));
  context.fillStyle = context.strokeStyle = colours.tone[look.tone] ?? colours.text;
  if (fill) context.fill(shape(fill));
  if (line) {
    context.lineWidth = 1.7;
    if (dash) context.setLineDash(dash.split(' ').map(Number));
    context.stroke(shape(line));
  }
  context.restore();
}

function many(context: CanvasRenderingContext2D, x: number, y: number, one: Cluster, colours: Colours): void {
  const size = one.members.length;
  const r = radius(size);
  context.fillStyle = colours.panel;
  context.beginPath();
  context.arc(x, y, r + 1, 0, 2 * Math.PI);
  context.fill();
  context.lineWidth = 4;
  let from = -Math.PI / 2;
  for (const state of SITE_STATES) {
    const share = one.states.get(state);
    if (!share) continue;
    // Even one failing site among thousands must be seen.
    const to = from + 2 * Math.PI * Math.max(share / size, state === 'healthy' ? 0 : 0.04);
    context.strokeStyle = colours.tone[lookOf(state).tone] ?? colours.text;
    context.beginPath();
    context.arc(x, y, r - 1.5, from, Math.min(to, 1.5 * Math.PI));
    context.stroke();
    from = to;
  }
  context.fillStyle = colours.text;
  context.font = '500 11px system-ui, sans-serif';
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  context.fillText(size >= 10_000 ? `${Math.round(size / 1000)}k` : size >= 1000 ? `${(size / 1000).toFixed(1)}k` : String(size), x, y + 0.5);
}
