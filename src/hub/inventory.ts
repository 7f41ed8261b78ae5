/** Keeps `vms` and `vm_disks` as the sources tell them. A VM is known by its instance uuid; its moref may change. */
import type { VmFacts } from '#/api/vm.ts';
import type { Catalog } from '#/catalog/catalog.ts';
import type { Agent, Source, Vm } from '#/catalog/records.ts';
import { now } from '#/lib/clock.ts';
import { SendenseError } from '#/lib/errors.ts';
import type { Agents } from './agents.ts';

export interface InventoryContext {
  catalog: Catalog;
  agents: Agents;
}

/** Asks the source for all its VMs and records them; returns what could not be read. */
export async function refreshSource(ctx: InventoryContext, agent: Agent, source: Source): Promise<string[]> {
  const inventory = await ctx.agents.withSource(agent, source, (client) =>
    client.getInventory({ query: { source: source.id } }),
  );
  await ctx.catalog.sources.update(source.id, { checkedAt: now(), instanceUuid: inventory.instanceUuid });
  for (const facts of inventory.vms) await recordVm(ctx.catalog, source, facts);
  return inventory.problems.map((problem) => `${problem.moref}: ${problem.reason}`);
}

/** The VM as it is at this moment; VM_NOT_FOUND when the source no longer has it. */
export async function refreshVm(
  ctx: InventoryContext,
  agent: Agent,
  source: Source,
  vm: Vm,
): Promise<{ vm: Vm; facts: VmFacts }> {
  const ask = (moref?: string): Promise<VmFacts | undefined> =>
    ctx.agents.withSource(agent, source, async (client) => {
      const query = { source: source.id, ...(moref !== undefined && { vm: moref }) };
      const { vms } = await client.getInventory({ query });
      return vms.find((one) => one.instanceUuid === vm.instanceUuid);
    });
  // The moref is a hint: a VM that was registered anew has another one, so look through all before giving up.
  const facts = (await ask(vm.moref)) ?? (await ask());
  if (!facts)
    throw new SendenseError('VM_NOT_FOUND', `${source.name} has no VM ${vm.name} (${vm.instanceUuid}) any more`);
  return { vm: await recordVm(ctx.catalog, source, facts), facts };
}

async function recordVm(catalog: Catalog, source: Source, facts: VmFacts): Promise<Vm> {
  const { disks, ...rest } = facts;
  const identified = disks.flatMap((disk) => (disk.uuid === null ? [] : [{ ...disk, diskUuid: disk.uuid }]));
  return catalog.transaction((trx) =>
    trx.vms.record({
      sourceId: source.id,
      moref: facts.moref,
      instanceUuid: facts.instanceUuid,
      biosUuid: facts.biosUuid,
      name: facts.name,
      path: facts.path,
      powerState: facts.powerState,
      guestName: facts.guestName,
      facts: { ...rest, disks },
      disks: identified.map(({ diskUuid, key, label, capacityBytes }) => ({ diskUuid, key, label, capacityBytes })),
    }),
  );
}
