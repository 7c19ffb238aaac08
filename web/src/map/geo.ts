/**
 * The arithmetic of the map: web Mercator onto the unit square, and clustering by a grid that is fixed to the world
 * (not to the window), so that clusters stand still while the map is dragged. 50,000 points take some milliseconds,
 * and only when the zoom step or the points change.
 */
import type { GeoPoint, SiteState } from '../api/types.ts';

const MAX_LAT = 85.0511;

export function project(lat: number, lon: number): [number, number] {
  const bounded = Math.min(MAX_LAT, Math.max(-MAX_LAT, lat));
  const rad = (bounded * Math.PI) / 180;
  return [lon / 360 + 0.5, 0.5 - Math.log(Math.tan(Math.PI / 4 + rad / 2)) / (2 * Math.PI)];
}

export interface Cluster {
  x: number;
  y: number;
  /** Indices into the points. */
  members: number[];
  states: Map<SiteState, number>;
  minX: number;
  minY: number;
  maxX: number;
  maxY: number;
}

/** The world is never more than 2^25 cells wide, so that two coordinates fit into one exact number. */
function cellKey(x: number, y: number): number {
  return (x + 1) * 0x4000000 + (y + 1);
}

/** Points that share a cell of `cell` world units become one cluster at their mean. */
export function cluster(points: readonly GeoPoint[], xy: Float64Array, cell: number): Cluster[] {
  const cells = new Map<number, Cluster>();
  for (let i = 0; i < points.length; i += 1) {
    const x = xy[2 * i] ?? 0;
    const y = xy[2 * i + 1] ?? 0;
    const key = cellKey(Math.floor(x / cell), Math.floor(y / cell));
    const state = points[i]?.[4] ?? 'pending';
    const found = cells.get(key);
    if (!found) {
      cells.set(key, { x, y, members: [i], states: new Map([[state, 1]]), minX: x, minY: y, maxX: x, maxY: y });
      continue;
    }
    const n = found.members.push(i);
    found.x += (x - found.x) / n;
    found.y += (y - found.y) / n;
    found.minX = Math.min(found.minX, x);
    found.minY = Math.min(found.minY, y);
    found.maxX = Math.max(found.maxX, x);
    found.maxY = Math.max(found.maxY, y);
    found.states.set(state, (found.states.get(state) ?? 0) + 1);
  }
  return apart([...cells.values()], cell);
}

/** Joins clusters that would overlap when drawn: the larger takes the smaller in. */
function apart(clusters: Cluster[], cell: number): Cluster[] {
  const near = 0.95 * cell;
  const kept = new Map<number, Cluster[]>();
  const result: Cluster[] = [];
  clusters.sort((a, b) => b.members.length - a.members.length);
  for (const one of clusters) {
    const cx = Math.floor(one.x / cell);
    const cy = Math.floor(one.y / cell);
    let host: Cluster | undefined;
    for (let x = cx - 1; x <= cx + 1 && !host; x += 1) {
      for (let y = cy - 1; y <= cy + 1 && !host; y += 1) {
        host = kept.get(cellKey(x, y))?.find((other) => other.members.length > 1 && Math.hypot(other.x - one.x, other.y - one.y) < near);
      }
    }
    if (host) {
      // Its place stays, so that what was decided about its neighbours stays true.
      for (const member of one.members) host.members.push(member);
      for (const [state, n] of one.states) host.states.set(state, (host.states.get(state) ?? 0) + n);
      host.minX = Math.min(host.minX, one.minX);
      host.minY = Math.min(host.minY, one.minY);
      host.maxX = Math.max(host.maxX, one.maxX);
      host.maxY = Math.max(host.maxY, one.maxY);
      continue;
    }
    const key = cellKey(cx, cy);
    const there = kept.get(key);
    if (there) there.push(one);
    else kept.set(key, [one]);
    result.push(one);
  }
  return result;
}

export function projectAll(points: readonly GeoPoint[]): Float64Array {
  const xy = new Float64Array(points.length * 2);
  points.forEach((point, i) => {
    const [x, y] = project(point[2], point[3]);
    xy[2 * i] = x;
    xy[2 * i + 1] = y;
  });
  return xy;
}

/** What the window shows: the world's point at its middle, and how many pixels the world is wide. */
export interface View {
  x: number;
  y: number;
  scale: number;
}

export const MIN_SCALE = 240;
export const MAX_SCALE = 256 * 2 ** 17;

export function bounded(view: View, width: number, height: number): View {
  const scale = Math.min(MAX_SCALE, Math.max(MIN_SCALE, view.scale));
  const half = (size: number): number => Math.min(0.5, size / 2 / scale);
  const hold = (value: number, size: number): number => Math.min(1 - half(size), Math.max(half(size), value));
  return { x: hold(view.x, width), y: hold(view.y, height), scale };
}

/** The view that shows all of a box with some room around it. */
export function fit(
  box: { minX: number; minY: number; maxX: number; maxY: number },
  width: number,
  height: number,
  closest = 256 * 2 ** 9,
): View {
  const w = Math.max(box.maxX - box.minX, 1e-9);
  const h = Math.max(box.maxY - box.minY, 1e-9);
  const scale = Math.min(closest, (0.8 * width) / w, (0.8 * height) / h);
  return bounded({ x: (box.minX + box.maxX) / 2, y: (box.minY + box.maxY) / 2, scale }, width, height);
}
