// Builds `dist/`, which the server embeds. Everything in it is a file of its own (no inline script or style, nothing from
// another host), so that the server's strict Content-Security-Policy blocks none of it. Paths are relative, so that the
// page also works behind a proxy that serves it below a prefix.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  base: './',
  plugins: [svelte()],
  build: {
    target: ['chrome109', 'firefox115', 'safari16'],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    // `npm run dev` beside a running `weir up`.
    proxy: { '/api': process.env['WEIR_URL'] ?? 'http://127.0.0.1:7780' },
  },
});
