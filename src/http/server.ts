/**
 * One HTTP server for hub and agent: routes from a table of src/api, one way to authenticate, one way to answer errors.
 * Handlers are given; nothing here knows a noun.
 */
import { timingSafeEqual, createHash } from 'node:crypto';
import fastify from 'fastify';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { ZodError, ZodType } from 'zod';
import type { HandlerArgs, ReplyInput, Route } from '#/api/route.ts';
import { ERRORS, SendenseError, toSendenseError } from '#/lib/errors.ts';
import type { Logger } from '#/lib/log.ts';
import { newId } from '#/lib/ids.ts';

export type Handlers<T extends Record<string, Route>> = {
  [K in keyof T]: (args: HandlerArgs<T[K]>) => Promise<ReplyInput<T[K]>>;
};

export interface ServerTls {
  cert: string;
  key: string;
  ca: string;
  /** Whether a client without a certificate of our CA is turned away. */
  clientCertificates: boolean;
}

export interface ServerOptions<T extends Record<string, Route>> {
  handlers: Handlers<T>;
  /** Throws UNAUTHENTICATED or NOT_ALLOWED unless the request may do the operation. */
  authorise: (operation: keyof T, request: FastifyRequest) => void;
  tls: ServerTls | null;
  log: Logger;
}

const BODY_LIMIT_BYTES = 4 * 1024 * 1024;

export function createServer<T extends Record<string, Route>>(table: T, options: ServerOptions<T>): FastifyInstance {
  const app = fastify({
    bodyLimit: BODY_LIMIT_BYTES,
    forceCloseConnections: true,
    genReqId: () => newId(),
    ...(options.tls && { https: tlsOptions(options.tls) }),
  }) as FastifyInstance;
  app.setErrorHandler(async (error, request, reply) => {
    const known = asKnown(error);
    if (known.code === 'INTERNAL')
      options.log.error({ err: error, requestId: request.id, url: request.url }, 'request failed');
    return reply.status(ERRORS[known.code].status).send(known.toWire(request.id));
  });
  app.setNotFoundHandler(async (request, reply) => {
    const error = new SendenseError(
      'NOT_FOUND',
      `no such operation: ${request.method} ${request.url.split('?')[0] ?? ''}`,
    );
    return reply.status(404).send(error.toWire(request.id));
  });
  for (const [name, route] of Object.entries(table)) serve(app, name, route, options);
  return app;
}

function serve<T extends Record<string, Route>>(
  app: FastifyInstance,
  name: keyof T,
  route: Route,
  options: ServerOptions<T>,
): void {
  const handler = options.handlers[name] as (args: HandlerArgs<Route>) => Promise<unknown>;
  app.route({
    method: route.method,
    url: route.path,
    handler: async (request, reply) => {
      options.authorise(name, request);
      const answer = await handler({
        params: parse(route.params, request.params, 'path') as undefined,
        query: parse(route.query, request.query, 'query') as undefined,
        body: parse(route.body, request.body, 'body') as undefined,
      });
      // The reply schema drops what is not in the contract and catches our own mistakes before a client does.
      return reply.status(route.status ?? 200).send(route.reply.parse(answer));
    },
  });
}

function tlsOptions(tls: ServerTls): Record<string, unknown> {
  const { clientCertificates, ...files } = tls;
  return { ...files, minVersion: 'TLSv1.3', requestCert: clientCertificates, rejectUnauthorized: clientCertificates };
}

function parse(schema: ZodType | undefined, value: unknown, where: string): unknown {
  if (!schema) return undefined;
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw invalid(result.error, where);
}

function invalid(error: ZodError, where: string): SendenseError {
  const fields = error.issues.map((issue) => `${[where, ...issue.path].join('.')}: ${issue.message}`);
  return new SendenseError('INVALID_REQUEST', fields.slice(0, 3).join('; '), { details: { fields } });
}

function asKnown(error: unknown): SendenseError {
  if (error instanceof SendenseError) return error;
  const status = (error as { statusCode?: number }).statusCode;
  if (status !== undefined && status >= 400 && status < 500) {
    return new SendenseError('INVALID_REQUEST', (error as Error).message);
  }
  return toSendenseError(error);
}

export function bearer(request: FastifyRequest): string {
  return /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
}

/** Compares two tokens in a time that tells nothing about them. */
export function sameToken(a: string, b: string): boolean {
  const [left, right] = [a, b].map((text) => createHash('sha256').update(text).digest());
  return left !== undefined && right !== undefined && timingSafeEqual(left, right);
}

/** Starts listening on `HOST:PORT` and returns the URL that really answers. */
export async function listenOn(app: FastifyInstance, listen: string, secure: boolean): Promise<string> {
  const match = /^(\[[^\]]+\]|[^:]+):(\d{1,5})$/.exec(listen);
  if (!match?.[1] || !match[2]) throw new SendenseError('CONFIG_INVALID', `${listen} is not HOST:PORT`);
  const host = match[1].replaceAll(/[[\]]/g, '');
  try {
    await app.listen({ host, port: Number(match[2]) });
  } catch (cause) {
    throw new SendenseError('CONFIG_INVALID', `cannot listen on ${listen}: ${(cause as Error).message}`, { cause });
  }
  const address = app.server.address();
  const port = typeof address === 'object' && address ? address.port : Number(match[2]);
  return `${secure ? 'https' : 'http'}://${match[1]}:${port}`;
}
