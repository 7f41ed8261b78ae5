import { SendenseError } from '#/lib/errors.ts';
import { newId } from '#/lib/ids.ts';
import type { Database } from './database.ts';
import type { Agent } from './records.ts';
import { AGENT } from './tables.ts';

export type AgentIdentity = Pick<Agent, 'name' | 'url' | 'certificateSha256'>;

export class Agents {
  readonly #on: Database;

  constructor(database: Database) {
    this.#on = database;
  }

  /** ALREADY_EXISTS when the name or the certificate is taken. */
  async create(given: AgentIdentity): Promise<Agent> {
    const agent: Agent = { ...given, id: newId(), version: null, registeredAt: this.#on.now(), lastSeenAt: null };
    await this.#on.db.insertInto('agents').values(AGENT.row(agent)).execute();
    return agent;
  }

  /** Creates the agent or, when the name is known, gives it this address and certificate; id and history stay. */
  async register(given: AgentIdentity): Promise<Agent> {
    const fresh: Agent = { ...given, id: newId(), version: null, registeredAt: this.#on.now(), lastSeenAt: null };
    const row = await this.#on.db
      .insertInto('agents')
      .values(AGENT.row(fresh))
      .onConflict((conflict) => conflict.column('name').doUpdateSet(AGENT.patch(given)))
      .returning(AGENT.names)
      .executeTakeFirstOrThrow();
    return AGENT.record(row);
  }

  /** The agent has just answered, and said which version it is. */
  async seen(id: string, version: string): Promise<void> {
    const columns = AGENT.patch({ version, lastSeenAt: this.#on.now() });
    await this.#on.db.updateTable('agents').set(columns).where('id', '=', id).execute();
  }

  /** By id or name. */
  async find(ref: string): Promise<Agent | undefined> {
    const rows = await this.#on.db
      .selectFrom('agents')
      .select(AGENT.names)
      .where((eb) => eb.or([eb('id', '=', ref), eb('name', '=', ref)]))
      .execute();
    const row = rows.find(({ id }) => id === ref) ?? rows[0];
    return row && AGENT.record(row);
  }

  /** By id or name; NOT_FOUND. */
  async get(ref: string): Promise<Agent> {
    const agent = await this.find(ref);
    if (!agent) throw new SendenseError('NOT_FOUND', `no agent ${ref}`, { details: { agent: ref } });
    return agent;
  }

  /** Who showed this certificate: its SHA-256 in the very form in which it was registered. */
  async findByCertificate(certificateSha256: string): Promise<Agent | undefined> {
    const row = await this.#on.db
      .selectFrom('agents')
      .select(AGENT.names)
      .where('certificate_sha256', '=', certificateSha256)
      .executeTakeFirst();
    return row && AGENT.record(row);
  }

  /** All, by name. */
  async list(): Promise<Agent[]> {
    const rows = await this.#on.db.selectFrom('agents').select(AGENT.names).orderBy('name').execute();
    return rows.map((row) => AGENT.record(row));
  }

  async remove(id: string): Promise<void> {
    await this.#on.db.deleteFrom('agents').where('id', '=', id).execute();
  }
}
