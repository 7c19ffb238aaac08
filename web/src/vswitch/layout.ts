/**
 * Where the parts of a vSwitch are drawn, as a hypervisor's client draws it. Wide: neighbours and uplinks on the left,
 * the switch as a bar, port groups with their ports on the right. Narrow: the same from top to bottom.
 * Pure, so that it can be tested without a browser.
 */
import type { Nic, VSwitch } from '../api/types.ts';

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}
export interface UplinkBox extends Box {
  name: string;
  link: boolean | string | null;
  active: boolean;
  detail: string;
  neighbour: string;
}
export interface PortBox extends Box {
  name: string;
  kind: 'vm' | 'vmknic';
}
export interface GroupBox extends Box {
  name: string;
  vlan: number | null;
  ports: PortBox[];
}
export interface Wire {
  points: [number, number][];
  state: 'up' | 'down' | 'standby';
}
export interface Drawing {
  width: number;
  height: number;
  narrow: boolean;
  bar: Box;
  uplinks: UplinkBox[];
  groups: GroupBox[];
  wires: Wire[];
}

const PORT = 30;
const HEAD = 34;
const GAP = 12;
const UPLINK = 62;
const BAR = 26;
const NARROW = 620;

export function isUp(link: boolean | string | null | undefined): boolean | null {
  if (link === null || link === undefined) return null;
  return link === true || link === 'up';
}

function speed(nic: Nic | undefined): string {
  const mbps = nic?.speedMbps;
  if (!mbps || mbps < 0) return '';
  return mbps >= 1000 ? `${mbps / 1000} Gbit/s` : `${mbps} Mbit/s`;
}

function neighbour(nic: Nic | undefined): string {
  const lldp = nic?.lldp;
  if (!lldp) return '';
  return [lldp.system || lldp.chassis, lldp.port].filter(Boolean).join(' · ');
}

export function draw(vswitch: VSwitch, nics: Record<string, Nic>, width: number): Drawing {
  const narrow = width < NARROW;
  const uplinks = vswitch.uplinks.map((uplink) => {
    const nic = nics[uplink.name];
    return {
      name: uplink.name,
      link: uplink.link ?? nic?.link ?? null,
      active: uplink.active !== false,
      detail: [speed(nic), nic?.driver].filter(Boolean).join(' · '),
      neighbour: neighbour(nic),
    };
  });
  return narrow ? tall(vswitch, uplinks, width) : wide(vswitch, uplinks, width);
}

type BareUplink = Omit<UplinkBox, keyof Box>;

function stateOf(uplink: BareUplink): Wire['state'] {
  return isUp(uplink.link) === false ? 'down' : uplink.active ? 'up' : 'standby';
}

function groupBoxes(vswitch: VSwitch, x: number, top: number, width: number): GroupBox[] {
  let y = top;
  return vswitch.portGroups.map((group) => {
    const height = HEAD + Math.max(1, group.ports.length) * PORT + 6;
    const box: GroupBox = {
      x,
      y,
      width,
      height,
      name: group.name,
      vlan: group.vlan ?? null,
      ports: group.ports.map((port, i) => ({
        x: x + 10,
        y: y + HEAD + i * PORT,
        width: width - 20,
        height: PORT - 6,
        name: port.name,
        kind: port.kind,
      })),
    };
    y += height + GAP;
    return box;
  });
}

function bottom(boxes: Box[]): number {
  return boxes.reduce((lowest, box) => Math.max(lowest, box.y + box.height), 0);
}

function wide(vswitch: VSwitch, bare: BareUplink[], width: number): Drawing {
  const side = Math.min(340, Math.floor((width - 160) * 0.4));
  const groupWidth = Math.min(520, width - side - 152);
  const barX = side + 60;
  const groups = groupBoxes(vswitch, barX + BAR + 60, 4, groupWidth);
  const column = bare.length * (UPLINK + GAP) - GAP;
  const inner = Math.max(bottom(groups) - 4, column, 90);
  const start = 4 + Math.max(0, (inner - column) / 2);
  const uplinks = bare.map((one, i) => ({ ...one, x: 2, y: start + i * (UPLINK + GAP), width: side, height: UPLINK }));
  const bar = { x: barX, y: 4, width: BAR, height: inner };
  const wires: Wire[] = [
    ...uplinks.map((one): Wire => {
      const y = one.y + one.height / 2;
      return { points: [[one.x + one.width, y], [bar.x, y]], state: stateOf(one) };
    }),
    ...groups.map((one): Wire => {
      const y = one.y + HEAD / 2;
      return { points: [[bar.x + BAR, y], [one.x, y]], state: 'up' };
    }),
  ];
  return { width, height: inner + 8, narrow: false, bar, uplinks, groups, wires };
}

function tall(vswitch: VSwitch, bare: BareUplink[], width: number): Drawing {
  // A rail on the left joins every box to the switch, so that no wire crosses a box.
  const rail = 26;
  const boxWidth = width - rail - 4;
  const uplinks = bare.map((one, i) => ({ ...one, x: rail, y: 4 + i * (UPLINK + 8), width: boxWidth, height: UPLINK }));
  const bar = { x: 2, y: (bottom(uplinks) || 0) + 14, width: width - 4, height: BAR };
  const groups = groupBoxes(vswitch, rail, bar.y + BAR + 14, boxWidth);
  const wires: Wire[] = [
    ...uplinks.map((one): Wire => {
      const y = one.y + one.height / 2;
      return { points: [[one.x, y], [14, y], [14, bar.y]], state: stateOf(one) };
    }),
    ...groups.map((one): Wire => {
      const y = one.y + HEAD / 2;
      return { points: [[14, bar.y + BAR], [14, y], [one.x, y]], state: 'up' };
    }),
  ];
  return { width, height: Math.max(bottom(groups), bar.y + BAR) + 4, narrow: true, bar, uplinks, groups, wires };
}

/** Cuts text that would run out of its box; the whole is in the title. */
export function clip(text: string, width: number, perCharacter = 7): string {
  const room = Math.max(3, Math.floor(width / perCharacter));
  return text.length <= room ? text : `${text.slice(0, room - 1)}…`;
}
