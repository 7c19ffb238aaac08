/** Fails when the page's first load grows beyond its budget: everything index.html needs, as gzip makes it. */
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const BUDGET = 200_000;
const dist = new URL('../dist/', import.meta.url);
const html = readFileSync(new URL('index.html', dist), 'utf8');
const files = [...html.matchAll(/(?:src|href)="\/(assets\/[^"]+\.(?:js|css))"/g)].map((match) => match[1]);
const size = (file) => gzipSync(readFileSync(new URL(file, dist)), { level: 9 }).length;
const scripts = files.filter((file) => file.endsWith('.js')).reduce((sum, file) => sum + size(file), 0);
const styles = files.filter((file) => file.endsWith('.css')).reduce((sum, file) => sum + size(file), 0);
console.log(`first load: ${(scripts / 1000).toFixed(1)} kB of scripts, ${(styles / 1000).toFixed(1)} kB of styles (gzip); budget ${BUDGET / 1000} kB of scripts`);
if (files.length === 0 || scripts > BUDGET) process.exit(1);
