// Shows the example page with as much of React as it uses, clicks its button, and prints what it says then.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { IntegrationAPI } from "revivatech-crm-link";

const { compiler, url, token } = JSON.parse(readFileSync(0, "utf8"));
const REACT = `
const states = [];
let at = 0, ran = false;
export const show = (component, props) => { at = 0; const shown = component(props); ran = true; return shown; };
export const useState = () => { const own = at++; return [states[own], (value) => (states[own] = value)]; };
export const useEffect = (effect) => ran || effect();
`;
const JSX = `
export const Fragment = "";
export const jsx = (type, props) => ({ type, props });
export const jsxs = jsx;
`;
mkdirSync("page/node_modules/react", { recursive: true });
const exports = { ".": "./index.js", "./jsx-runtime": "./jsx-runtime.js" };
writeFileSync("page/node_modules/react/package.json", JSON.stringify({ type: "module", exports }));
writeFileSync("page/node_modules/react/index.js", REACT);
writeFileSync("page/node_modules/react/jsx-runtime.js", JSX);
const { transpileModule } = createRequire(import.meta.url)(compiler);
const source = readFileSync("node_modules/revivatech-crm-link/examples/CRMIntegrationStatus.tsx", "utf8");
const compilerOptions = { jsx: 4, module: 99, target: 9 }; // react-jsx, esnext, es2022
writeFileSync("page/example.mjs", transpileModule(source, { compilerOptions }).outputText);
writeFileSync("page/react.mjs", 'export { show } from "react";');
const { show } = await import("./page/react.mjs");
const { CRMIntegrationStatus } = await import("./page/example.mjs");

const elements = (node) => {
    if (Array.isArray(node)) return node.flatMap(elements);
    return node?.props ? [node, ...elements(node.props.children)] : [];
};
const text = (node) => {
    if (Array.isArray(node)) return node.map(text).join("");
    if (node?.props) return text(node.props.children);
    return typeof node === "boolean" ? "" : `${node ?? ""}`;
};
const props = { url, onTest: () => new IntegrationAPI({ url, token }).test() };
const until = async (find) => {
    for (let tries = 0; tries < 500; tries++) {
        const found = find(elements(show(CRMIntegrationStatus, props)));
        if (found) return found;
        await new Promise((resume) => setTimeout(resume, 20));
    }
    throw new Error("nothing was shown");
};
const button = await until((shown) => shown.find(({ type }) => type === "button"));
button.props.onClick();
const said = await until((shown) => {
    const announced = shown.filter(({ props }) => props.role === "status");
    return text(announced.slice(1)); // the first says how the link is
});
process.stdout.write(JSON.stringify(said));
process.exit();
