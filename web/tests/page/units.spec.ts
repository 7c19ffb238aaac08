/** Parts that need no browser: the arithmetic of the map, the drawing of a vSwitch, small formats. */
import { expect, test } from '@playwright/test';
import type { GeoPoint } from '../../src/api/types.ts';
import { ago, bytes, parsePairs, shortCommit } from '../../src/lib/format.ts';
import { linkLook, lookOf, SHAPES } from '../../src/lib/status.ts';
import { bounded, cluster, fit, project, projectAll } from '../../src/map/geo.ts';
import { clip, draw } from '../../src/vswitch/layout.ts';

test('projects and clusters without losing a site', () => {
  expect(project(0, 0)).toEqual([0.5, 0.5]);
  expect(project(0, 180)[0]).toBe(1);
  const points = Array.from({ length: 5000 }, (_, i): GeoPoint => [`${i}`, `s${i}`, (i * 37) % 120 - 60, (i * 101) % 360 - 180, i % 9 ? 'healthy' : 'failing']);
  for (const cell of [0.5, 0.05, 0.001]) {
    const found = cluster(points, projectAll(points), cell);
    const members = found.flatMap((one) => one.members).sort((a, b) => a - b);
    expect(members).toEqual(points.map((_, i) => i));
    const failing = found.reduce((sum, one) => sum + (one.states.get('failing') ?? 0), 0);
    expect(failing).toBe(points.filter((point) => point[4] === 'failing').length);
    for (const one of found) expect([...one.states.values()].reduce((a, b) => a + b)).toBe(one.members.length);
  }
});

test('keeps the map within the world', () => {
  const view = bounded({ x: -3, y: 9, scale: 1 }, 800, 600);
  expect(view.scale).toBeGreaterThan(1);
  expect(view.x).toBeGreaterThanOrEqual(0);
  expect(view.y).toBeLessThanOrEqual(1);
  const one = fit({ minX: 0.5, maxX: 0.5, minY: 0.5, maxY: 0.5 }, 800, 600);
  expect(Number.isFinite(one.scale)).toBe(true);
});

test('draws a vSwitch without overlaps, at every width', () => {
  const vswitch = {
    mtu: 9000,
    uplinks: [{ name: 'eno1', link: true, active: true }, { name: 'eno2', link: false, active: false }],
    portGroups: Array.from({ length: 5 }, (_, i) => ({ name: `group-${i}`, vlan: i * 10, ports: Array.from({ length: i }, (_, n) => ({ kind: 'vm' as const, name: `vm-${n}` })) })),
  };
  for (let width = 280; width <= 1600; width += 40) {
    const drawing = draw(vswitch, { eno1: { link: true, speedMbps: 10_000 } }, width);
    const boxes = [drawing.bar, ...drawing.uplinks, ...drawing.groups];
    boxes.forEach((a, i) => {
      expect(a.x).toBeGreaterThanOrEqual(0);
      expect(a.x + a.width).toBeLessThanOrEqual(width);
      expect(a.y + a.height).toBeLessThanOrEqual(drawing.height);
      for (const b of boxes.slice(i + 1)) {
        const apart = a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y;
        expect(apart, `boxes at width ${width}`).toBe(true);
      }
    });
    expect(drawing.wires.map((wire) => wire.state)).toContain('down');
  }
  expect(draw({ uplinks: [], portGroups: [] }, {}, 900).height).toBeGreaterThan(0);
  expect(clip('a-rather-long-name', 60)).toMatch(/…$/);
});

test('tells every two states apart by more than colour', () => {
  const groups = [
    ['healthy', 'progressing', 'degraded', 'failing', 'stale', 'offline', 'pending'],
    ['online', 'stale', 'offline', 'never'],
    ['critical', 'warning', 'info'],
    ['pending', 'awaitingApproval', 'running', 'succeeded', 'reverted'],
    ['waiting', 'told', 'succeeded', 'failed'],
    ['none', 'maintenance', 'reboot'],
  ];
  for (const group of groups) {
    const shapes = group.map((state) => lookOf(state).shape);
    expect(new Set(shapes).size, group.join()).toBe(group.length);
    for (const shape of shapes) expect(SHAPES[shape]).toBeDefined();
  }
  expect(lookOf('somethingNew').word).toBe('somethingNew');
  expect(linkLook('up').word).toBe('Link up');
  expect(linkLook(undefined).word).toBe('Unknown');
});

test('formats as people read', () => {
  expect(bytes(68_719_476_736)).toBe('64.0 GiB');
  expect(bytes(undefined)).toBe('–');
  expect(shortCommit('5e1c9b02a7d34f3b9f10c2ad85e6071b44d2f9e8')).toBe('5e1c9b02');
  expect(shortCommit('main')).toBe('main');
  expect(ago('2026-01-01T00:00:00Z', Date.parse('2026-01-01T00:05:00Z'))).toContain('5 min');
  expect(ago('nonsense', 0)).toBe('–');
  expect(parsePairs('a=1\n b = c=d \n')).toEqual({ pairs: { a: '1', b: 'c=d' } });
  expect(parsePairs('oops').error).toContain('oops');
});
