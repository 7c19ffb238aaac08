/**
 * Fails on any package of the tree whose licence is not among those we take. What ends up in the page is permissive, but
 * for noVNC (MPL-2.0: its files are used as they are); a few build and test tools are MPL-2.0 and ship nothing.
 */
import { readFileSync } from 'node:fs';

const PERMISSIVE = new Set(['MIT', 'ISC', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD', 'Apache-2.0', 'BlueOak-1.0.0', 'CC0-1.0', 'Unlicense', 'Python-2.0', 'CC-BY-4.0']);
const MPL = [/^@novnc\/novnc$/, /^axe-core$/, /^@axe-core\/playwright$/, /^lightningcss(-.*)?$/];

const root = new URL('../', import.meta.url);
const lock = JSON.parse(readFileSync(new URL('package-lock.json', root), 'utf8'));
// A package that leaves the field out; its LICENSE file says so.
const SAID = { 'svelte-toolbelt': 'MIT' };

const bad = [];
const tally = new Map();
for (const [path, entry] of Object.entries(lock.packages)) {
  if (!path) continue;
  const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
  const licence = String(entry.license ?? installed(path)?.license ?? SAID[name] ?? 'unknown');
  const choices = licence.replace(/[()]/g, '').split(/ OR /);
  const taken = choices.some((choice) => choice.split(/ AND /).every((part) => PERMISSIVE.has(part)));
  const excepted = licence === 'MPL-2.0' && MPL.some((pattern) => pattern.test(name)) && (entry.dev || entry.optional || name === '@novnc/novnc');
  tally.set(licence, (tally.get(licence) ?? 0) + 1);
  if (!taken && !excepted) bad.push(`${name} ${entry.version}: ${licence}`);
}
function installed(path) {
  try {
    return JSON.parse(readFileSync(new URL(`${path}/package.json`, root), 'utf8'));
  } catch {
    return undefined;
  }
}
for (const [licence, n] of [...tally].sort((a, b) => b[1] - a[1])) console.log(`${String(n).padStart(4)}  ${licence}`);
if (bad.length) {
  console.error(`not among the licences that we take:\n  ${bad.join('\n  ')}`);
  process.exit(1);
}
