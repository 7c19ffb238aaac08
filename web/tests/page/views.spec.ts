/** Every view, in both themes and three widths: no accessibility violation, no sideways scrolling, and a picture to look at. */
import AxeBuilder from '@axe-core/playwright';
import { expect, test } from './signed.ts';

const views: [name: string, path: string, ready: string][] = [
  ['login', '/login', 'Sign in'],
  ['overview', '/t/acme', 'Needs you now'],
  ['overview-empty', '/t/new', 'This organisation has no sites.'],
  ['overview-50k', '/t/fleet', 'Needs you now'],
  ['sites', '/t/acme/sites', 'role:columnheader'],
  ['sites-50k', '/t/fleet/sites', '50,000'],
  ['sites-empty', '/t/new/sites', 'There are no sites yet.'],
  ['sites-map', '/t/acme/sites?view=map', 'Healthy'],
  ['sites-map-50k', '/t/fleet/sites?view=map', 'Healthy'],
  ['site', '/t/acme/sites/@0', 'Wanted and true'],
  ['site-diff', '/t/acme/sites/@0/diff', 'to change'],
  ['site-events', '/t/acme/sites/@0/events', 'CheckpointRestored'],
  ['site-access', '/t/acme/sites/@0/access', 'Plain kubectl'],
  ['hosts', '/t/acme/hosts', 'role:columnheader'],
  ['host', '/t/acme/hosts/@1-a', 'vSwitch0'],
  ['host-network', '/t/acme/hosts/@0-a/network', 'Physical NICs'],
  ['host-vms', '/t/acme/hosts/@1-a/vms', 'pos-1'],
  ['host-hardware', '/t/acme/hosts/@0-a/hardware', 'Supermicro'],
  ['host-usage', '/t/acme/hosts/@0-a/usage', 'Received'],
  ['host-logs', '/t/acme/hosts/@0-a/logs', 'reconciled host'],
  ['vm', '/t/acme/hosts/@1-a/vms/store/pos-2', 'From a terminal'],
  ['vm-console', '/t/acme/hosts/@1-a/vms/store/pos-2/console', 'Connected'],
  ['vm-screen', '/t/acme/hosts/@1-a/vms/store/pos-2/screen', 'Connected'],
  ['repositories', '/t/acme/repositories', 'stores'],
  ['repositories-empty', '/t/new/repositories', 'No repository yet.'],
  ['repository', '/t/acme/repositories/stores', 'Raise the MTU'],
  ['repository-hosted', '/t/acme/repositories/labs', 'Git access'],
  ['plans', '/t/acme/plans', 'sites change'],
  ['plan', '/t/acme/plans/01980008-0000-7000-8000-000000000001', 'Impact'],
  ['rollouts', '/t/acme/rollouts', 'Under way'],
  ['rollouts-empty', '/t/new/rollouts', 'No rollout is under way.'],
  ['rollout', '/t/acme/rollouts/01980004-0000-7000-8000-000000000001', 'Waves'],
  ['policies', '/t/acme/policies', 'careful'],
  ['enrolment', '/t/acme/enrollment', 'localhost-1'],
  ['enrolment-empty', '/t/new/enrollment', 'No host is waiting.'],
  ['enrolment-expected', '/t/acme/enrollment/expected', 'Known by'],
  ['enrolment-keys', '/t/acme/enrollment/keys', 'warehouse-batch'],
  ['alerts', '/t/acme/alerts', 'Commit quarantined'],
  ['alerts-channels', '/t/acme/alerts/channels', 'operations'],
  ['audit', '/t/acme/audit', 'site.update'],
  ['people', '/t/acme/people', 'Grace Hopper'],
  ['people-tokens', '/t/acme/people/tokens', 'ci'],
  ['account', '/account', 'Appearance'],
  ['missing', '/t/acme/sites/no-such-site', 'no such object'],
];
const looks = [
  { scheme: 'light', width: 1280, height: 860 },
  { scheme: 'dark', width: 1280, height: 860 },
  { scheme: 'light', width: 360, height: 740 },
  { scheme: 'dark', width: 360, height: 740 },
] as const;

let names: string[] = [];

for (const { scheme, width, height } of looks) {
  for (const [name, path, ready] of views) {
    test(`${name} ${scheme} ${width}`, async ({ signed: page }) => {
      if (name === 'login') await page.context().clearCookies();
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
      let to = path;
      if (path.includes('@')) {
        if (!names.length) {
          const answer = await page.request.get('/api/v1/tenants/acme/sites?limit=10');
          names = ((await answer.json()) as { items: { name: string }[] }).items.map((site) => site.name);
        }
        to = path.replace(/@(\d)/, (_, index: string) => names[Number(index)] ?? '');
      }
      await page.goto(to);
      const there = ready.startsWith('role:') ? page.getByRole('columnheader') : page.getByText(ready).locator('visible=true');
      await expect(there.first()).toBeVisible();
      if (name === 'vm-console') await expect(page.locator('.xterm-rows')).toContainText('pos-1 login:');
      if (name === 'vm-screen') await expect(page.locator('.screen canvas')).toBeVisible();
      // Fonts, charts and the map draw in the next frames.
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)))));
      await page.screenshot({ path: `shots/${name}-${scheme}-${width}.png` });
      const sideways = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      expect(sideways, 'the page scrolls sideways').toBeLessThanOrEqual(0);
      const found = await new AxeBuilder({ page }).exclude('.xterm').analyze();
      expect(found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target.join(' ')} ${node.any[0]?.message ?? node.all[0]?.message ?? ''}`).slice(0, 4).join(' | ')}`)).toEqual([]);
    });
  }
}
