// Builds the page: files with hashed names that a server can hand out under the console's Content-Security-Policy.
import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [preact()],
  build: {
    // All browsers that know module preloading, and no script that the policy would have to allow.
    modulePreload: { polyfill: false },
    // The policy has `img-src data:` for images only; the icon stays a file.
    assetsInlineLimit: 0,
  },
  server: { proxy: { "/api": "http://127.0.0.1:18090" } },
});
