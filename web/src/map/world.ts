/**
 * The outline of the world (Natural Earth, public domain, by the world-atlas package), drawn into paths on the unit
 * square. The coarse one comes first; the finer one is fetched when somebody looks closely.
 */
import coarse from 'world-atlas/countries-110m.json?url';
import fine from 'world-atlas/countries-50m.json?url';
import { feature, mesh } from 'topojson-client';
import type { Feature, FeatureCollection } from 'geojson';
import type { GeometryCollection, Topology } from 'topojson-specification';
import { project } from './geo.ts';

export interface World {
  land: Path2D;
  borders: Path2D;
}

function line(path: Path2D, points: number[][], shift = 0): void {
  points.forEach(([lon = 0, lat = 0], i) => {
    const [x, y] = project(lat, lon + shift);
    // A border that crosses the date line is taken up again on the other side.
    if (i === 0 || Math.abs(lon - (points[i - 1]?.[0] ?? lon)) > 180) path.moveTo(x, y);
    else path.lineTo(x, y);
  });
}

/** The outline is spherical: a ring may cross the date line or go around a pole. Unrolled, it is one plane shape. */
function unroll(ring: number[][]): number[][] {
  let turn = 0;
  const flat = ring.map(([lon = 0, lat = 0], i) => {
    const step = lon - (ring[i - 1]?.[0] ?? lon);
    if (step > 180) turn -= 360;
    else if (step < -180) turn += 360;
    return [lon + turn, lat];
  });
  const first = flat[0]?.[0] ?? 0;
  const last = flat.at(-1)?.[0] ?? 0;
  if (Math.abs(last - first) > 180) flat.push([last, -90], [first, -90]);
  return flat;
}

/** The finer outline has a hundred thousand points: every few milliseconds the page gets a turn. */
async function breathe(since: number): Promise<number> {
  if (performance.now() - since < 6) return since;
  await new Promise((done) => setTimeout(done));
  return performance.now();
}

async function read(url: string): Promise<World> {
  const response = await fetch(url);
  const topology = (await response.json()) as Topology<{ countries: GeometryCollection; land: GeometryCollection }>;
  const land = new Path2D();
  let pace = performance.now();
  const shapes: Feature | FeatureCollection = feature(topology, topology.objects.land);
  for (const { geometry } of 'features' in shapes ? shapes.features : [shapes]) {
    const polygons =
      geometry.type === 'MultiPolygon' ? geometry.coordinates : geometry.type === 'Polygon' ? [geometry.coordinates] : [];
    for (const ring of polygons.flat()) {
      pace = await breathe(pace);
      const flat = unroll(ring);
      const low = Math.min(...flat.map(([lon = 0]) => lon));
      const high = Math.max(...flat.map(([lon = 0]) => lon));
      // What hangs over one edge of the map is drawn once more at the other.
      for (const shift of [0, ...(high > 180 ? [-360] : []), ...(low < -180 ? [360] : [])]) {
        line(land, flat, shift);
        land.closePath();
      }
    }
  }
  const borders = new Path2D();
  for (const part of mesh(topology, topology.objects.countries, (a, b) => a !== b).coordinates) {
    pace = await breathe(pace);
    line(borders, part);
  }
  return { land, borders };
}

let coarseWorld: Promise<World> | undefined;
let fineWorld: Promise<World> | undefined;

export function world(close: boolean): Promise<World> {
  if (close) return (fineWorld ??= read(fine));
  return (coarseWorld ??= read(coarse));
}
