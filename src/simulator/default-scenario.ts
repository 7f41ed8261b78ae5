const MIB = 1024 ** 2;

/** What `sendense simulator run` shows without a scenario file: two ordinary VMs and a few that need care. */
export const DEFAULT_SCENARIO = {
  datacenter: 'dc01',
  datastores: [{ name: 'datastore1', type: 'NFS' }],
  vms: [
    {
      name: 'web01',
      folder: 'production',
      annotation: 'Web server with a system and a data disk',
      disks: [
        { sizeBytes: 320 * MIB, content: 'partitioned' },
        { sizeBytes: 256 * MIB, content: 'ext4' },
      ],
    },
    {
      name: 'db01',
      folder: 'production',
      annotation: 'Its disk is not a multiple of 64 KiB',
      disks: [{ sizeBytes: 200 * MIB + 3 * 512, content: 'ext4' }],
    },
    {
      name: 'Büro/測試 01',
      folder: 'edge',
      powerState: 'poweredOff',
      tools: 'notInstalled',
      disks: [{ sizeBytes: 64 * MIB, content: 'blank' }],
    },
    {
      name: 'golden-image',
      folder: 'edge',
      template: true,
      powerState: 'poweredOff',
      tools: 'notRunning',
      disks: [{ sizeBytes: 64 * MIB, content: 'ext4' }],
    },
    {
      name: 'scratch01',
      folder: 'edge',
      disks: [
        { sizeBytes: 64 * MIB, content: 'ext4' },
        { sizeBytes: 64 * MIB, content: 'random:10', mode: 'independent_persistent' },
      ],
    },
    {
      name: 'legacy01',
      folder: 'edge',
      hardwareVersion: 4,
      tools: 'notInstalled',
      firmware: 'bios',
      controller: 'VirtualLsiLogicController',
      disks: [{ sizeBytes: 32 * MIB, content: 'random:50' }],
    },
  ],
};
