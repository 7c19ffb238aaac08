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

function line(path: Path2D, ring: number[][]): void {
  ring.forEach(([lon = 0, lat = 0], i) => {
    const [x, y] = project(lat, lon);
    if (i === 0) path.moveTo(x, y);
    else path.lineTo(x, y);
  });
}

async function read(url: string): Promise<World> {
  const response = await fetch(url);
  const topology = (await response.json()) as Topology<{ countries: GeometryCollection; land: GeometryCollection }>;
  const land = new Path2D();
  const shapes: Feature | FeatureCollection = feature(topology, topology.objects.land);
  for (const { geometry } of 'features' in shapes ? shapes.features : [shapes]) {
    const polygons =
      geometry.type === 'MultiPolygon' ? geometry.coordinates : geometry.type === 'Polygon' ? [geometry.coordinates] : [];
    for (const ring of polygons.flat()) {
      line(land, ring);
      land.closePath();
    }
  }
  const borders = new Path2D();
  for (const part of mesh(topology, topology.objects.countries, (a, b) => a !== b).coordinates) line(borders, part);
  return { land, borders };
}

let coarseWorld: Promise<World> | undefined;
let fineWorld: Promise<World> | undefined;

export function world(close: boolean): Promise<World> {
  if (close) return (fineWorld ??= read(fine));
  return (coarseWorld ??= read(coarse));
}
