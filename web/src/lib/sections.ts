/** Status sections of a host, picked apart by their prefix. */
import type { HostStatus, Nic, Vm, VSwitch } from '../api/types.ts';

function under<T>(status: HostStatus | undefined, prefix: string): [string, T][] {
  return Object.entries(status ?? {})
    .filter(([key, value]) => key.startsWith(prefix) && typeof value === 'object' && value !== null)
    .map(([key, value]): [string, T] => [key.slice(prefix.length), value as T])
    .sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true }));
}

export function nicsOf(status: HostStatus | undefined): [string, Nic][] {
  return under<Nic>(status, 'nic/');
}

export function vswitchesOf(status: HostStatus | undefined): [string, VSwitch][] {
  return under<Partial<VSwitch>>(status, 'vswitch/').map(([name, value]) => [
    name,
    {
      ...value,
      uplinks: value.uplinks ?? [],
      portGroups: (value.portGroups ?? []).map((group) => ({ ...group, ports: group.ports ?? [] })),
    },
  ]);
}

export interface NamedVm extends Vm {
  key: string;
  namespace: string;
  name: string;
}

export function vmsOf(status: HostStatus | undefined): NamedVm[] {
  return under<Vm>(status, 'vm/').map(([key, vm]) => {
    const at = key.indexOf('/');
    return { ...vm, key, namespace: at < 0 ? 'default' : key.slice(0, at), name: key.slice(at + 1) };
  });
}
