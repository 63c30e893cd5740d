// Builds every widget: <name>.js (ESM, for anywidget), <name>.css, and <name>.page.js (a script for
// pages without a kernel, where a policy forbids importing a module from memory), and the page's host.
import { build } from "esbuild";
import { mkdir, readdir, rm } from "node:fs/promises";
import { basename } from "node:path";

const out = new URL("../src/innerview/widgets/static/", import.meta.url).pathname;
const from = new URL("./", import.meta.url).pathname;
const limit = 100_000;

const shared = {
  bundle: true,
  minify: true,
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
  metafile: true,
};

const names = (await readdir(`${from}widgets`))
  .filter((file) => /\.tsx?$/.test(file))
  .map((file) => file.replace(/\.tsx?$/, ""));

await mkdir(out, { recursive: true });
const built = [];
for (const name of names) {
  const entry = `${from}widgets/${name}.tsx`;
  built.push(build({ ...shared, entryPoints: [entry], format: "esm", outfile: `${out}${name}.js` }));
  built.push(
    build({ ...shared, entryPoints: [entry], format: "iife", globalName: `innerview_${name}`, outfile: `${out}${name}.page.js` }),
  );
  built.push(build({ ...shared, entryPoints: [`${from}widgets/${name}.css`], outfile: `${out}${name}.css` }));
}
built.push(build({ ...shared, entryPoints: [`${from}page/host.ts`], format: "iife", outfile: `${out}host.js` }));
built.push(build({ ...shared, entryPoints: [`${from}page/page.css`], outfile: `${out}page.css` }));

for (const { metafile } of await Promise.all(built)) {
  for (const [path, { bytes }] of Object.entries(metafile.outputs)) {
    if (bytes > limit) throw new Error(`${path} has ${bytes} bytes; a bundle stays under ${limit}`);
  }
}

// What no source makes any more goes last: a kernel that runs meanwhile finds its files throughout.
const made = new Set((await Promise.all(built)).flatMap(({ metafile }) => Object.keys(metafile.outputs).map((path) => basename(path))));
for (const file of await readdir(out)) if (!made.has(file) && file !== ".built") await rm(`${out}${file}`);
