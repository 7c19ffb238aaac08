/** What opens over a view: dialogs, menus, the palette, the drawer of a narrow window. Checked and pictured like views. */
import AxeBuilder from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { expect, test } from './signed.ts';

const overlays: [name: string, path: string, open: (page: Page) => Promise<void>][] = [
  ['palette', '/t/acme', async (page) => {
    await page.getByText('Needs you now').waitFor();
    await page.keyboard.press('/');
    await page.getByRole('combobox').fill('berlin');
    await page.getByRole('option').first().waitFor();
  }],
  ['site-form', '/t/acme/sites', async (page) => {
    await page.getByRole('button', { name: 'Add a site' }).click();
    await page.getByLabel('Time zone').waitFor();
  }],
  ['repository-form', '/t/acme/repositories', async (page) => {
    await page.getByRole('button', { name: 'Register a repository' }).click();
    await page.getByLabel('Authentication').selectOption('ssh');
  }],
  ['policy-form', '/t/acme/policies', async (page) => {
    await page.getByRole('button', { name: 'Change careful' }).click();
    await page.getByLabel('Failure budget').waitFor();
  }],
  ['role-form', '/t/acme/people', async (page) => {
    await page.getByRole('button', { name: 'Give grace a role' }).click();
    await page.getByRole('combobox', { name: /^For/ }).selectOption('selector');
  }],
  ['totp-form', '/account', async (page) => {
    await page.getByRole('button', { name: /Set up/ }).click();
    await page.getByText('JBSW Y3DP').waitFor();
  }],
  ['confirm', '/t/acme/repositories/stores', async (page) => {
    await page.getByRole('button', { name: 'More actions' }).click();
    await page.getByRole('menuitem', { name: 'Remove…' }).click();
    await page.getByLabel(/Type/).fill('st');
  }],
  ['menu', '/t/acme/repositories/stores', async (page) => {
    await page.getByRole('button', { name: 'More actions' }).click();
    await page.getByRole('menuitem', { name: 'Remove…' }).waitFor();
  }],
  ['audit-entry', '/t/acme/audit', async (page) => {
    await page.getByRole('button', { name: 'site.update' }).first().click();
    await page.getByText('Before', { exact: true }).waitFor();
  }],
  ['drawer', '/t/acme', async (page) => {
    const menu = page.getByRole('button', { name: 'Menu' });
    if (await menu.isVisible()) await menu.click();
    await page.getByRole('link', { name: 'Rollouts' }).first().waitFor();
  }],
  ['cluster', '/t/acme/sites?view=map', async (page) => {
    await page.getByRole('list', { name: /States of the sites/ }).waitFor();
    const map = page.getByRole('img', { name: /Map of/ });
    const box = await map.boundingBox();
    // The first cluster under a grid of clicks.
    for (let y = 0.2; y < 0.8; y += 0.03) {
      for (let x = 0.1; x < 0.9; x += 0.03) {
        await page.mouse.click((box?.x ?? 0) + (box?.width ?? 0) * x, (box?.y ?? 0) + (box?.height ?? 0) * y);
        if (await page.getByRole('dialog').isVisible()) return;
      }
    }
  }],
];

for (const [scheme, width] of [['light', 1280], ['dark', 360]] as const) {
  for (const [name, path, open] of overlays) {
    test(`${name} ${scheme} ${width}`, async ({ signed: page }) => {
      await page.setViewportSize({ width, height: width === 360 ? 740 : 860 });
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
      await page.goto(path);
      await open(page);
      await page.screenshot({ path: `shots/over-${name}-${scheme}-${width}.png` });
      expect(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)).toBeLessThanOrEqual(0);
      const found = await new AxeBuilder({ page }).analyze();
      expect(found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target.join(' ')} ${node.any[0]?.message ?? node.all[0]?.message ?? ''}`).slice(0, 3).join(' | ')}`)).toEqual([]);
    });
  }
}
