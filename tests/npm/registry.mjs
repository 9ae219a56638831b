// Verdaccio, a registry that needs no login, on a free port, which it prints. Its folder is the first argument; the
// second one is where npm installed it.
import {createRequire} from "node:module";
import {join} from "node:path";

const [folder, modules] = process.argv.slice(2);
const {runServer} = createRequire(join(modules, "package.json"))("verdaccio");
const server = await runServer({
  storage: join(folder, "storage"),
  configPath: join(folder, "verdaccio.yaml"),
  uplinks: {},
  packages: {"**": {access: "$all", publish: "$all", unpublish: "$all"}},
  security: {api: {legacy: true}},
  log: {type: "stdout", level: "fatal"},
  web: {enable: false},
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
