import { now } from '#/lib/clock.ts';
import { VimFault } from './faults.ts';
import { contained, DATACENTER, ROOT_FOLDER, serviceContent, propertiesOf } from './inventory.ts';
import type { ContainerView } from './inventory.ts';
import { method, returnval, sessionOf } from './method.ts';
import type { Call, Method } from './method.ts';
import { userSession } from './sessions.ts';
import { objectNotFound } from './faults.ts';
import { Ref } from './values.ts';
import { escapeName, vmRef } from './vm-properties.ts';

export const SESSION_METHODS: Readonly<Record<string, Method>> = {
  RetrieveServiceContent: method(
    'ServiceInstance',
    '',
    ({ world }) => returnval('ServiceContent', serviceContent(world)),
    {
      anonymous: true,
    },
  ),
  CurrentTime: method('ServiceInstance', '', () => returnval('dateTime', now().toString())),
  Login: method('SessionManager', 'userName password locale?', login, { anonymous: true }),
  Logout: method('SessionManager', '', (call) => {
    call.world.sessions.end(sessionOf(call));
    return '';
  }),
  SessionIsActive: method('SessionManager', 'sessionID userName', ({ world, args }) => {
    const live = world.sessions.live(world.settings.sessionTimeoutMs);
    return returnval(
      'boolean',
      live.some((session) => session.key === args.text('sessionID')),
    );
  }),
  CreateContainerView: method('ViewManager', 'container:ref type* recursive:boolean', createContainerView),
  DestroyView: method('View', '', (call) => {
    sessionOf(call).objects.delete(call.self.id);
    return '';
  }),
  FindByInventoryPath: method('SearchIndex', 'inventoryPath', (call) => {
    return returnval('ref', findByPath(call));
  }),
  FindByUuid: method(
    'SearchIndex',
    'datacenter:ref? uuid vmSearch:boolean instanceUuid:boolean?',
    ({ world, args }) => {
      const wanted = args.text('uuid').toLowerCase();
      const byInstance = args.flag('instanceUuid') ?? false;
      const vm = world.vms.find((entry) => (byInstance ? entry.instanceUuid : entry.uuid) === wanted);
      return returnval('ref', args.flag('vmSearch') && vm ? vmRef(vm) : undefined);
    },
  ),
};

/** A cookie that is logged in already is refused like a wrong password. */
function login(call: Call): string {
  const { world, args } = call;
  const refused = new VimFault('InvalidLogin', 'Cannot complete login due to an incorrect user name or password.');
  if (call.session || !world.sessions.accepts(args.text('userName'), args.text('password'))) throw refused;
  const locale = args.optionalText('locale');
  if (locale !== undefined && !/^[a-z]{2}([_-]\w+)?$/i.test(locale)) {
    throw new VimFault('InvalidLocale', 'The locale is not known.');
  }
  const session = world.sessions.begin(world.store.state.username, call.userAgent);
  if (!session) throw new VimFault('OutOfBounds', 'The maximum number of sessions has been exceeded.');
  call.setSession(session);
  return returnval('UserSession', userSession(session));
}

function createContainerView(call: Call): string {
  const container = call.args.ref('container') ?? ROOT_FOLDER;
  if (!propertiesOf(call.world, call.session, container)) throw objectNotFound(container);
  const session = sessionOf(call);
  const ref = new Ref('ContainerView', `session[${session.key}]${crypto.randomUUID()}`);
  const view: ContainerView = {
    ref,
    container,
    types: call.args.texts('type'),
    recursive: call.args.flag('recursive') ?? false,
  };
  session.objects.set(ref.id, view);
  return returnval('ref', ref);
}

function findByPath({ world, args }: Call): Ref | undefined {
  const path = args.text('inventoryPath').replace(/^\/|\/$/g, '');
  if (path === '') return ROOT_FOLDER;
  const [first, ...rest] = path.split('/');
  if (first !== escapeName(world.store.state.datacenter)) return undefined;
  let at: Ref | undefined = DATACENTER;
  for (const name of rest) {
    const below: Ref[] = at ? contained(world, { container: at, types: [], recursive: false }) : [];
    at = below.find((child) => propertiesOf(world, undefined, child)?.['name']?.() === name);
  }
  return at;
}
