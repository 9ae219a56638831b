// An authorization server that nobody here wrote, over TLS on loopback, for tests/test_oauth2_server.py.
//
// Usage: node server.mjs CONFIG.json. Prints its issuer once it listens. CONFIG holds: key and cert (PEM files),
// clients (as oidc-provider takes them), lifetime (of access tokens, in seconds), modules (where npm installed it).
import { createRequire } from "node:module";
import { createServer } from "node:https";
import { readFileSync } from "node:fs";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { Provider } = createRequire(`${config.modules}/`)("oidc-provider");

const server = createServer({ key: readFileSync(config.key), cert: readFileSync(config.cert) });
server.listen(0, "127.0.0.1", () => {
  const issuer = `https://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: config.clients,
    cookies: { keys: ["only for tests"] },
    scopes: ["openid", "offline_access", "read"],
    clientAuthMethods: [
      "client_secret_basic",
      "client_secret_post",
      "client_secret_jwt",
      "private_key_jwt",
      "none",
    ],
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true },
      devInteractions: { enabled: true },
    },
    ttl: { ClientCredentials: config.lifetime, AccessToken: config.lifetime, RefreshToken: 86400 },
    rotateRefreshToken: true,
    issueRefreshToken: async (_context, client) => client.grantTypeAllowed("refresh_token"),
    findAccount: async (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
