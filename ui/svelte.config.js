import { vitePreprocess } from '@sveltejs/vite-plugin-svelte';

/** @type {import('@sveltejs/vite-plugin-svelte').SvelteConfig} */
export default {
  preprocess: vitePreprocess(),
  compilerOptions: {
    runes: true,
    // On a narrow screen the table is laid out as cards (`display: grid`), by which some browsers drop the table's roles;
    // there the roles written out are not redundant.
    warningFilter: (warning) => warning.code !== 'a11y_no_redundant_roles',
  },
};
