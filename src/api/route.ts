import type { z } from 'zod';

/** One operation of a REST API; hub routes, agent routes, client and documents are all made from such entries. */
export interface Route {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** Fastify form: `/api/v1/jobs/:job`. */
  path: string;
  summary: string;
  params?: z.ZodType;
  query?: z.ZodType;
  body?: z.ZodType;
  reply: z.ZodType;
  /** Success status; default 200. 202 means that the answer names work that goes on. */
  status?: 200 | 201 | 202;
}

type In<S> = S extends z.ZodType ? z.input<S> : never;
type Out<S> = S extends z.ZodType ? z.output<S> : undefined;

type Part<R extends Route, K extends 'params' | 'query' | 'body'> = R extends Record<K, infer S> ? S : undefined;

/** What a caller passes. */
export type CallArgs<R extends Route> = (Part<R, 'params'> extends undefined
  ? unknown
  : { params: In<Part<R, 'params'>> }) &
  (Part<R, 'query'> extends undefined ? unknown : { query?: In<Part<R, 'query'>> }) &
  (Part<R, 'body'> extends undefined ? unknown : { body: In<Part<R, 'body'>> });

/** What a handler gets, parsed. */
export interface HandlerArgs<R extends Route> {
  params: Out<Part<R, 'params'>>;
  query: Out<Part<R, 'query'>>;
  body: Out<Part<R, 'body'>>;
}

export type Reply<R extends Route> = z.output<R['reply']>;
export type ReplyInput<R extends Route> = z.input<R['reply']>;
