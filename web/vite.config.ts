import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `npm run dev` (or `npx vite preview`, of what was built) against a running orchestrator: SELVEDGE_URL=https://127.0.0.1:8443
const orchestrator = process.env.SELVEDGE_URL ?? 'http://127.0.0.1:8480';

const proxy = {
  '/api': { target: orchestrator, secure: false, ws: true, changeOrigin: true, headers: { origin: orchestrator } },
};

export default defineConfig({
  plugins: [svelte({ configFile: './svelte.config.js' })],
  build: {
    target: 'es2022',
    // A data: URI would need a wider content security policy than the page has.
    assetsInlineLimit: 0,
    // The notices of everything that ends up in the bundle travel with it.
    license: { fileName: 'licences.md' },
  },
  // The server refuses requests that come from another site's page: towards it we are its own.
  server: { proxy },
  preview: { proxy },
});
