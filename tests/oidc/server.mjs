// An authorization server that nobody here wrote, over TLS on loopback (tests/support/oidc.py starts it).
//
// Usage: node server.mjs CONFIG.json. Prints its issuer once it listens. CONFIG holds: key, cert and ca (PEM files),
// clients (as oidc-provider takes them), lifetime (of access tokens, in seconds), modules (where npm installed it).
//
// What it asks a person is answered by a POST to the page that it asks on: ?answer=agree or ?answer=deny.
import { createRequire } from "node:module";
import { createServer } from "node:https";
import { readFileSync } from "node:fs";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { Provider } = createRequire(`${config.modules}/`)("oidc-provider");

const ASKING = "/interaction/";

/** The answer to one question: who somebody is, or whether they agree. */
async function answered(provider, details, answer) {
  if (answer !== "agree") {
    return { error: "access_denied", error_description: "the person did not agree" };
  }
  if (details.prompt.name === "login") {
    return { login: { accountId: "somebody" } };
  }
  const { prompt, params, session, grantId } = details;
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope((prompt.details.missingOIDCScope ?? []).join(" "));
  return { consent: { grantId: await grant.save() } };
}

async function ask(provider, request, response) {
  const details = await provider.interactionDetails(request, response);
  if (request.method !== "POST") {
    response.end(`${details.prompt.name}?`);
    return;
  }
  const answer = new URL(request.url, "https://localhost").searchParams.get("answer");
  const result = await answered(provider, details, answer);
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

/** Whether the certificate that a client showed is for `expected` (RFC 8705 section 2.1.2). */
function certificateSubjectMatches(context, property, expected) {
  const names = context.socket.getPeerCertificate().subjectaltname ?? "";
  return property === "tls_client_auth_san_dns" && names.split(", ").includes(`DNS:${expected}`);
}

const server = createServer({
  key: readFileSync(config.key),
  cert: readFileSync(config.cert),
  ca: readFileSync(config.ca),
  requestCert: true,
  rejectUnauthorized: false,
});
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
      "tls_client_auth",
      "none",
    ],
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      revocation: { enabled: true },
      devInteractions: { enabled: false },
      mTLS: {
        enabled: true,
        tlsClientAuth: true,
        getCertificate: (context) => context.socket.getPeerX509Certificate(),
        certificateAuthorized: (context) => context.socket.authorized,
        certificateSubjectMatches,
      },
    },
    interactions: { url: (_context, interaction) => `${ASKING}${interaction.uid}` },
    ttl: {
      ClientCredentials: config.lifetime,
      AccessToken: config.lifetime,
      RefreshToken: 86400,
      DeviceCode: 600,
      Grant: 86400,
      Interaction: 600,
      Session: 86400,
    },
    rotateRefreshToken: true,
    issueRefreshToken: async (_context, client) => client.grantTypeAllowed("refresh_token"),
    findAccount: async (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  });
  const rest = provider.callback();
  server.on("request", (request, response) => {
    if (!request.url.startsWith(ASKING)) {
      rest(request, response);
      return;
    }
    ask(provider, request, response).catch((error) => {
      response.statusCode = 500;
      response.end(String(error));
    });
  });
  console.log(issuer);
});
