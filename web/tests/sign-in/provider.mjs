/**
 * A real OpenID Connect provider (the certified npm package `oidc-provider`) with three people, on loopback:
 *
 *     node provider.mjs PORT CALLBACK        its client `selvedge` has the secret in SECRET
 *
 * What a test changes of it: PUT /test/people/NAME {groups}, PUT /test/nonce {spoil}; what it was asked: GET /test/asked.
 */
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, callback] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const people = new Map([
  ['grace', { name: 'Grace Hopper', groups: ['ops', 'tea'] }],
  ['alan', { name: 'Alan Turing', groups: [] }],
  ['ada', { name: 'An Impostor', groups: ['ops'] }],
]);
const asked = [];
let spoil = false;

const provider = new Provider(issuer, {
  clients: [{ client_id: 'selvedge', client_secret: process.env.SECRET, redirect_uris: [callback], grant_types: ['authorization_code'], response_types: ['code'] }],
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'], groups: ['groups'] },
  pkce: { required: () => true },
  cookies: { keys: ['of a test'] },
  features: { devInteractions: { enabled: true } },
  findAccount: (_, id) => {
    const person = people.get(id);
    if (!person) return undefined;
    return {
      accountId: id,
      claims: () => ({ sub: `subject of ${id}`, preferred_username: id, name: person.name, email: `${id}@example.com`, email_verified: true, groups: person.groups }),
    };
  },
});
provider.use(async (ctx, next) => {
  if (ctx.path === '/auth') {
    asked.push({ ...ctx.query });
    if (spoil) ctx.query = { ...ctx.query, nonce: 'of another sign-in' };
  }
  await next();
});
const serve = provider.callback();

createServer(async (request, response) => {
  const [, test, what, name] = (request.url ?? '').split('/');
  if (test !== 'test') return serve(request, response);
  let body = '';
  for await (const part of request) body += part;
  const sent = body ? JSON.parse(body) : {};
  if (what === 'people') Object.assign(people.get(name), sent);
  if (what === 'nonce') ({ spoil } = sent);
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(asked));
}).listen(Number(port), '127.0.0.1');
