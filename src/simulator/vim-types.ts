/**
 * The part of the vim25 object model that the simulator speaks: for each type its fields in schema order, base type
 * first, as `name`, `name:type`, `?` optional, `*` any number, `+` at least one. A field without type is a string; a
 * type that is not listed here is an enumeration, `any` is taken as it comes.
 */
import { assert } from '#/lib/errors.ts';

export interface Field {
  name: string;
  type: string;
  min: 0 | 1;
  many: boolean;
}

const BASIC = new Set(['string', 'int', 'long', 'short', 'byte', 'boolean', 'dateTime', 'double', 'any', 'ref']);

export function isBasicType(type: string): boolean {
  return BASIC.has(type);
}

export function parseFields(text: string): Field[] {
  return text
    .split(/\s+/)
    .filter((word) => word !== '')
    .map((word) => {
      const match = /^(\w+)(?::(\w+))?([?*+]?)$/.exec(word);
      assert(match?.[1] !== undefined, `field ${word} is well-formed`);
      const mark = match[3];
      return {
        name: match[1],
        type: match[2] ?? 'string',
        min: mark === '?' || mark === '*' ? 0 : 1,
        many: mark === '*' || mark === '+',
      };
    });
}

const DEFINITIONS = `
ServiceContent: rootFolder:ref propertyCollector:ref viewManager:ref? about:AboutInfo setting:ref?
  userDirectory:ref? sessionManager:ref? authorizationManager:ref? serviceManager:ref? perfManager:ref?
  scheduledTaskManager:ref? alarmManager:ref? eventManager:ref? taskManager:ref? extensionManager:ref?
  customizationSpecManager:ref? guestCustomizationManager:ref? customFieldsManager:ref? accountManager:ref?
  diagnosticManager:ref? licenseManager:ref? searchIndex:ref? fileManager:ref? datastoreNamespaceManager:ref?
  virtualDiskManager:ref? virtualizationManager:ref? snmpSystem:ref? vmProvisioningChecker:ref?
  vmCompatibilityChecker:ref? ovfManager:ref? ipPoolManager:ref? dvSwitchManager:ref? hostProfileManager:ref?
  clusterProfileManager:ref? complianceManager:ref? localizationManager:ref? storageResourceManager:ref?
  guestOperationsManager:ref? overheadMemoryManager:ref? certificateManager:ref? ioFilterManager:ref?
  vStorageObjectManager:ref? hostSpecManager:ref? cryptoManager:ref? healthUpdateManager:ref?
  failoverClusterConfigurator:ref? failoverClusterManager:ref? tenantManager:ref? siteInfoManager:ref?
  storageQueryManager:ref? directPathProfileManager:ref?
AboutInfo: name fullName vendor version patchLevel? build localeVersion? localeBuild? osType productLineId apiType
  apiVersion instanceUuid? licenseProductName? licenseProductVersion?
UserSession: key userName fullName loginTime:dateTime lastActiveTime:dateTime locale messageLocale
  extensionSession:boolean? ipAddress? userAgent? callCount:long?
PropertyFilterSpec: propSet:PropertySpec+ objectSet:ObjectSpec+ reportMissingObjectsInResults:boolean?
PropertySpec: type all:boolean? pathSet*
ObjectSpec: obj:ref skip:boolean? selectSet:SelectionSpec*
SelectionSpec: name?
TraversalSpec < SelectionSpec: type path skip:boolean? selectSet:SelectionSpec*
RetrieveOptions: maxObjects:int?
RetrieveResult: token? objects:ObjectContent+
ObjectContent: obj:ref propSet:DynamicProperty* missingSet:MissingProperty*
DynamicProperty: name val:any
MissingProperty: path fault:LocalizedMethodFault
LocalizedMethodFault: fault:any localizedMessage?
WaitOptions: maxWaitSeconds:int? maxObjectUpdates:int?
UpdateSet: version filterSet:PropertyFilterUpdate* truncated:boolean?
PropertyFilterUpdate: filter:ref objectSet:ObjectUpdate* missingSet:any*
ObjectUpdate: kind:ObjectUpdateKind obj:ref changeSet:PropertyChange* missingSet:MissingProperty*
PropertyChange: name op:PropertyChangeOp val:any
Description: label summary
OptionValue: key value:any
VirtualMachineConfigSpec: changeVersion? name? version? createDate:dateTime? uuid? instanceUuid?
  npivNodeWorldWideName:long* npivPortWorldWideName:long* npivWorldWideNameType? npivDesiredNodeWwns:short?
  npivDesiredPortWwns:short? npivTemporaryDisabled:boolean? npivOnNonRdmDisks:boolean? npivWorldWideNameOp?
  locationId? guestId? alternateGuestName? annotation? files:VirtualMachineFileInfo? tools:ToolsConfigInfo?
  flags:VirtualMachineFlagInfo? consolePreferences:any? powerOpInfo:VirtualMachineDefaultPowerOpInfo?
  rebootPowerOff:boolean? numCPUs:int? vcpuConfig:any* numCoresPerSocket:int? memoryMB:long?
  memoryHotAddEnabled:boolean? cpuHotAddEnabled:boolean? cpuHotRemoveEnabled:boolean? virtualICH7MPresent:boolean?
  virtualSMCPresent:boolean? deviceChange:VirtualDeviceConfigSpec* cpuAllocation:any? memoryAllocation:any?
  latencySensitivity:any? cpuAffinity:any? memoryAffinity:any? networkShaper:any? cpuFeatureMask:any*
  extraConfig:OptionValue* swapPlacement? bootOptions:VirtualMachineBootOptions? vAppConfig:any? ftInfo:any?
  repConfig:any? vAppConfigRemoved:boolean? vAssertsEnabled:boolean? changeTrackingEnabled:boolean? firmware?
  maxMksConnections:int? guestAutoLockEnabled:boolean? managedBy:any? memoryReservationLockedToMax:boolean?
  nestedHVEnabled:boolean? vPMCEnabled:boolean? scheduledHardwareUpgradeInfo:any? vmProfile:any*
  messageBusTunnelEnabled:boolean? crypto:any? migrateEncryption? sgxInfo:any? ftEncryptionMode?
  guestMonitoringModeInfo:any? sevEnabled:boolean? virtualNuma:any? motherboardLayout? pmemFailoverEnabled:boolean?
  vmxStatsCollectionEnabled:boolean? vmOpNotificationToAppEnabled:boolean? vmOpNotificationTimeout:long?
  deviceSwap:any? simultaneousThreads:int? pmem:any? deviceGroups:any? fixedPassthruHotPlugEnabled:boolean?
  metroFtEnabled:boolean? metroFtHostGroup? tdxEnabled:boolean? sevSnpEnabled:boolean? vmPlacementPolicies:any*
VirtualDeviceConfigSpec: operation:VirtualDeviceConfigSpecOperation?
  fileOperation:VirtualDeviceConfigSpecFileOperation? device:VirtualDevice profile:any* backing:any? filterSpec:any*
  changeMode?
VirtualDevice: key:int deviceInfo:Description? backing:VirtualDeviceBackingInfo? connectable:VirtualDeviceConnectInfo? slotInfo:any?
  controllerKey:int? unitNumber:int? numaNode:int? deviceGroupInfo:any?
VirtualDeviceConnectInfo: migrateConnect? startConnected:boolean allowGuestControl:boolean connected:boolean status?
VirtualDiskFlatVer2BackingInfo < VirtualDeviceFileBackingInfo: diskMode split:boolean? writeThrough:boolean?
  thinProvisioned:boolean? eagerlyScrub:boolean? uuid? contentId? changeId? parent:VirtualDiskFlatVer2BackingInfo?
  deltaDiskFormat? digestEnabled:boolean? deltaGrainSize:int? deltaDiskFormatVariant? sharing? keyId:CryptoKeyId?
VirtualDiskRawDiskMappingVer1BackingInfo < VirtualDeviceFileBackingInfo: lunUuid? deviceName? compatibilityMode?
  diskMode? uuid? contentId? changeId? parent:VirtualDiskRawDiskMappingVer1BackingInfo? deltaDiskFormat?
  deltaGrainSize:int? sharing?
VirtualDisk < VirtualDevice: capacityInKB:long capacityInBytes:long? shares:any? storageIOAllocation:any?
  diskObjectId? vFlashCacheConfigInfo:any? iofilter* vDiskId:any? vDiskVersion:int? virtualDiskFormat?
  nativeUnmanagedLinkedClone:boolean? independentFilters:any* guestReadOnly:boolean?
VirtualController < VirtualDevice: busNumber:int device:int*
VirtualSCSIController < VirtualController: hotAddRemove:boolean? sharedBus:VirtualSCSISharing
  scsiCtlrUnitNumber:int?
VirtualEthernetCard < VirtualDevice: addressType? macAddress? wakeOnLanEnabled:boolean? resourceAllocation:any?
  externalId? uptCompatibilityEnabled:boolean? subnetId?
VirtualEthernetCardNetworkBackingInfo < VirtualDeviceDeviceBackingInfo: network:ref? inPassthroughMode:boolean?
VirtualMachineGuestQuiesceSpec: timeout:int?
VirtualMachineWindowsQuiesceSpec < VirtualMachineGuestQuiesceSpec: vssBackupType:int?
  vssBootableSystemState:boolean? vssPartialFileSupport:boolean? vssBackupContext?
VirtualMachineConfigInfo: changeVersion modified:dateTime name guestFullName version uuid createDate:dateTime?
  instanceUuid? npivNodeWorldWideName:long* npivPortWorldWideName:long* npivWorldWideNameType?
  npivDesiredNodeWwns:short? npivDesiredPortWwns:short? npivTemporaryDisabled:boolean? npivOnNonRdmDisks:boolean?
  locationId? template:boolean guestId alternateGuestName annotation? files:VirtualMachineFileInfo
  tools:ToolsConfigInfo? flags:VirtualMachineFlagInfo consolePreferences:any?
  defaultPowerOps:VirtualMachineDefaultPowerOpInfo rebootPowerOff:boolean? hardware:VirtualHardware vcpuConfig:any*
  cpuAllocation:any? memoryAllocation:any? latencySensitivity:any? memoryHotAddEnabled:boolean?
  cpuHotAddEnabled:boolean? cpuHotRemoveEnabled:boolean? hotPlugMemoryLimit:long? hotPlugMemoryIncrementSize:long?
  cpuAffinity:any? memoryAffinity:any? networkShaper:any? extraConfig:OptionValue* cpuFeatureMask:any*
  datastoreUrl:any* swapPlacement? bootOptions:VirtualMachineBootOptions? ftInfo:any? repConfig:any? vAppConfig:any?
  vAssertsEnabled:boolean? changeTrackingEnabled:boolean? firmware? maxMksConnections:int?
  guestAutoLockEnabled:boolean? managedBy:any? memoryReservationLockedToMax:boolean? initialOverhead:any?
  nestedHVEnabled:boolean? vPMCEnabled:boolean? scheduledHardwareUpgradeInfo:any? forkConfigInfo:any?
  vFlashCacheReservation:long? vmxConfigChecksum* messageBusTunnelEnabled:boolean? vmStorageObjectId?
  swapStorageObjectId? keyId:CryptoKeyId? guestIntegrityInfo:any? migrateEncryption? sgxInfo:any?
  contentLibItemInfo:any? ftEncryptionMode? guestMonitoringModeInfo:any? sevEnabled:boolean? numaInfo:any?
  pmemFailoverEnabled:boolean? vmxStatsCollectionEnabled:boolean? vmOpNotificationToAppEnabled:boolean?
  vmOpNotificationTimeout:long? deviceSwap:any? pmem:any? deviceGroups:any? fixedPassthruHotPlugEnabled:boolean?
  metroFtEnabled:boolean? vmxRuntimeConfig:OptionValue* metroFtHostGroup? tdxEnabled:boolean? sevSnpEnabled:boolean?
VirtualHardware: numCPU:int numCoresPerSocket:int? autoCoresPerSocket:boolean? memoryMB:int
  virtualICH7MPresent:boolean? virtualSMCPresent:boolean? device:VirtualDevice* motherboardLayout?
  simultaneousThreads:int?
VirtualMachineFileInfo: vmPathName? snapshotDirectory? suspendDirectory? logDirectory? ftMetadataDirectory?
VirtualMachineFlagInfo: disableAcceleration:boolean? enableLogging:boolean? useToe:boolean?
  runWithDebugInfo:boolean? monitorType? htSharing? snapshotDisabled:boolean? snapshotLocked:boolean?
  diskUuidEnabled:boolean? virtualMmuUsage? virtualExecUsage? snapshotPowerOffBehavior? recordReplayEnabled:boolean?
  faultToleranceType? cbrcCacheEnabled:boolean? vvtdEnabled:boolean? vbsEnabled:boolean?
VirtualMachineBootOptions: bootDelay:long? enterBIOSSetup:boolean? efiSecureBootEnabled:boolean?
  bootRetryEnabled:boolean? bootRetryDelay:long? bootOrder:any* networkBootProtocol?
VirtualMachineDefaultPowerOpInfo: powerOffType? suspendType? resetType? defaultPowerOffType? defaultSuspendType?
  defaultResetType? standbyAction?
ToolsConfigInfo: toolsVersion:int? toolsInstallType? afterPowerOn:boolean? afterResume:boolean?
  beforeGuestStandby:boolean? beforeGuestShutdown:boolean? beforeGuestReboot:boolean? toolsUpgradePolicy?
  pendingCustomization? customizationKeyId:CryptoKeyId? syncTimeWithHostAllowed:boolean? syncTimeWithHost:boolean?
  lastInstallInfo:any?
CryptoKeyId: keyId providerId:any?
VirtualMachineRuntimeInfo: device:any* host:ref? connectionState:VirtualMachineConnectionState
  powerState:VirtualMachinePowerState vmFailoverInProgress:boolean?
  faultToleranceState:VirtualMachineFaultToleranceState? dasVmProtection:any? toolsInstallerMounted:boolean
  suspendTime:dateTime? bootTime:dateTime? suspendInterval:long? question:any? memoryOverhead:long? maxCpuUsage:int?
  maxMemoryUsage:int? numMksConnections:int recordReplayState:VirtualMachineRecordReplayState?
  cleanPowerOff:boolean? needSecondaryReason? onlineStandby:boolean? minRequiredEVCModeKey?
  consolidationNeeded:boolean? offlineFeatureRequirement:any* featureRequirement:any* featureMask:any*
  vFlashCacheAllocation:long? paused:boolean? snapshotInBackground:boolean? quiescedForkParent:boolean?
  instantCloneFrozen:boolean? cryptoState? suspendedToMemory:boolean? opNotificationTimeout:long?
  iommuActive:boolean?
GuestInfo: toolsStatus:VirtualMachineToolsStatus? toolsVersionStatus? toolsVersionStatus2? toolsRunningStatus?
  toolsVersion? toolsInstallType? guestId? guestFamily? guestFullName? guestDetailedData? hostName? ipAddress?
  net:any* ipStack:any* disk:any* screen:any? guestState appHeartbeatStatus? guestKernelCrashed:boolean? appState?
  guestOperationsReady:boolean? interactiveGuestOperationsReady:boolean? guestStateChangeSupported:boolean?
  generationInfo:any* hwVersion? customizationInfo:any?
VirtualMachineCapability: snapshotOperationsSupported:boolean multipleSnapshotsSupported:boolean
  snapshotConfigSupported:boolean poweredOffSnapshotsSupported:boolean memorySnapshotsSupported:boolean
  revertToSnapshotSupported:boolean quiescedSnapshotsSupported:boolean disableSnapshotsSupported:boolean
  lockSnapshotsSupported:boolean consolePreferencesSupported:boolean cpuFeatureMaskSupported:boolean
  s1AcpiManagementSupported:boolean settingScreenResolutionSupported:boolean toolsAutoUpdateSupported:boolean
  vmNpivWwnSupported:boolean npivWwnOnNonRdmVmSupported:boolean vmNpivWwnDisableSupported:boolean?
  vmNpivWwnUpdateSupported:boolean? swapPlacementSupported:boolean toolsSyncTimeSupported:boolean
  virtualMmuUsageSupported:boolean diskSharesSupported:boolean bootOptionsSupported:boolean
  bootRetryOptionsSupported:boolean? settingVideoRamSizeSupported:boolean settingDisplayTopologySupported:boolean?
  recordReplaySupported:boolean? changeTrackingSupported:boolean? multipleCoresPerSocketSupported:boolean?
  hostBasedReplicationSupported:boolean? guestAutoLockSupported:boolean? memoryReservationLockSupported:boolean?
  featureRequirementSupported:boolean? poweredOnMonitorTypeChangeSupported:boolean? seSparseDiskSupported:boolean?
  nestedHVSupported:boolean? vPMCSupported:boolean? secureBootSupported:boolean? perVmEvcSupported:boolean?
  virtualMmuUsageIgnored:boolean? virtualExecUsageIgnored:boolean? diskOnlySnapshotOnSuspendedVMSupported:boolean?
  suspendToMemorySupported:boolean? toolsSyncTimeAllowSupported:boolean? sevSupported:boolean?
  pmemFailoverSupported:boolean? requireSgxAttestationSupported:boolean? changeModeDisksSupported:boolean?
  vendorDeviceGroupSupported:boolean? sevSnpSupported:boolean? tdxSupported:boolean?
VirtualMachineSummary: vm:ref? runtime:VirtualMachineRuntimeInfo guest:VirtualMachineGuestSummary?
  config:VirtualMachineConfigSummary storage:VirtualMachineStorageSummary? quickStats:VirtualMachineQuickStats
  overallStatus:ManagedEntityStatus customValue:any*
VirtualMachineConfigSummary: name template:boolean vmPathName memorySizeMB:int? cpuReservation:int?
  memoryReservation:int? numCpu:int? numEthernetCards:int? numVirtualDisks:int? uuid? instanceUuid? guestId?
  guestFullName? annotation? product:any? installBootRequired:boolean? ftInfo:any? managedBy:any?
  tpmPresent:boolean? numVmiopBackings:int? hwVersion?
VirtualMachineStorageSummary: committed:long uncommitted:long unshared:long timestamp:dateTime
VirtualMachineQuickStats: overallCpuUsage:int? overallCpuDemand:int? overallCpuReadiness:int? guestMemoryUsage:int?
  hostMemoryUsage:int? guestHeartbeatStatus:ManagedEntityStatus distributedCpuEntitlement:int?
  distributedMemoryEntitlement:int? staticCpuEntitlement:int? staticMemoryEntitlement:int? grantedMemory:int?
  privateMemory:int? sharedMemory:int? swappedMemory:int? balloonedMemory:int? consumedOverheadMemory:int?
  ftLogBandwidth:int? ftSecondaryLatency:int? ftLatencyStatus:ManagedEntityStatus? compressedMemory:long?
  uptimeSeconds:int? ssdSwappedMemory:long? activeMemory:int? memoryTierStats:any*
VirtualMachineGuestSummary: guestId? guestFullName? toolsStatus:VirtualMachineToolsStatus? toolsVersionStatus?
  toolsVersionStatus2? toolsRunningStatus? hostName? ipAddress? hwVersion?
VirtualMachineStorageInfo: perDatastoreUsage:VirtualMachineUsageOnDatastore* timestamp:dateTime
VirtualMachineUsageOnDatastore: datastore:ref committed:long uncommitted:long unshared:long
VirtualMachineFileLayoutEx: file:VirtualMachineFileLayoutExFileInfo* disk:VirtualMachineFileLayoutExDiskLayout*
  snapshot:VirtualMachineFileLayoutExSnapshotLayout* timestamp:dateTime
VirtualMachineFileLayoutExFileInfo: key:int name type size:long uniqueSize:long? backingObjectId?
  accessible:boolean?
VirtualMachineFileLayoutExDiskLayout: key:int virtualDiskFormat? chain:VirtualMachineFileLayoutExDiskUnit*
VirtualMachineFileLayoutExDiskUnit: fileKey:int+
VirtualMachineFileLayoutExSnapshotLayout: key:ref dataKey:int memoryKey:int?
  disk:VirtualMachineFileLayoutExDiskLayout*
VirtualMachineSnapshotInfo: currentSnapshot:ref? rootSnapshotList:VirtualMachineSnapshotTree+
VirtualMachineSnapshotTree: snapshot:ref vm:ref name description id:int? createTime:dateTime
  state:VirtualMachinePowerState quiesced:boolean backupManifest? childSnapshotList:VirtualMachineSnapshotTree*
  replaySupported:boolean?
TaskInfo: key task:ref description:any? name? descriptionId entity:ref? entityName? locked:ref* state:TaskInfoState
  cancelled:boolean cancelable:boolean error:LocalizedMethodFault? result:any? progress:int? progressDetails:any*
  reason:any queueTime:dateTime startTime:dateTime? completeTime:dateTime? eventChainId:int changeTag?
  parentTaskKey? rootTaskKey? activationId?
TaskReasonUser: userName
DiskChangeInfo: startOffset:long length:long changedArea:DiskChangeExtent*
DiskChangeExtent: start:long length:long
Event: key:int chainId:int createdTime:dateTime userName datacenter:any? computeResource:any? host:any?
  vm:VmEventArgument? ds:any? net:any? dvs:any? fullFormattedMessage? changeTag?
TaskEvent < Event: info:TaskInfo
EventArgument:
EntityEventArgument < EventArgument: name
VmEventArgument < EntityEventArgument: vm:ref
EventFilterSpec: entity:EventFilterSpecByEntity? time:EventFilterSpecByTime? userName:EventFilterSpecByUsername?
  eventChainId:int? alarm:ref? scheduledTask:ref? disableFullMessage:boolean? category* type* tag* eventTypeId*
  maxCount:int? delayedInit:boolean?
EventFilterSpecByEntity: entity:ref recursion:EventFilterSpecRecursionOption
EventFilterSpecByTime: beginTime:dateTime? endTime:dateTime?
EventFilterSpecByUsername: systemUser:boolean userList*
DatastoreSummary: datastore:ref? name url capacity:long freeSpace:long uncommitted:long? accessible:boolean
  multipleHostAccess:boolean? type maintenanceMode?
DatastoreHostMount: key:ref mountInfo:HostMountInfo
HostMountInfo: path? accessMode mounted:boolean? accessible:boolean? inaccessibleReason? vmknicName?
  vmknicActive:boolean? mountFailedReason? numTcpConnections:int?
DatastoreCapability: directoryHierarchySupported:boolean rawDiskMappingsSupported:boolean
  perFileThinProvisioningSupported:boolean storageIORMSupported:boolean? nativeSnapshotSupported:boolean?
  topLevelDirectoryCreateSupported:boolean? seSparseSupported:boolean? vmfsSparseSupported:boolean?
  vsanSparseSupported:boolean? upitSupported:boolean? vmdkExpandSupported:boolean? clusteredVmdkSupported:boolean?
HostListSummary: host:ref? hardware:HostHardwareSummary? runtime:HostRuntimeInfo? config:HostConfigSummary
  quickStats:HostListSummaryQuickStats overallStatus:ManagedEntityStatus rebootRequired:boolean customValue:any*
  managementServerIp? maxEVCModeKey? currentEVCModeKey? currentEVCGraphicsModeKey? gateway:any? tpmAttestation:any?
  trustAuthorityAttestationInfos:any*
HostConfigSummary: name port:int sslThumbprint? sslCertificate? product:AboutInfo? vmotionEnabled:boolean
  faultToleranceEnabled:boolean? featureVersion:any* agentVmDatastore:ref? agentVmNetwork:ref?
HostRuntimeInfo: connectionState:HostSystemConnectionState powerState:HostSystemPowerState standbyMode?
  inMaintenanceMode:boolean inQuarantineMode:boolean? bootTime:dateTime? healthSystemRuntime:any? dasHostState:any?
  tpmPcrValues:any* vsanRuntimeInfo:any? networkRuntimeInfo:any? vFlashResourceRuntimeInfo:any?
  hostMaxVirtualDiskCapacity:long? cryptoState? cryptoKeyId:CryptoKeyId? statelessNvdsMigrationReady?
  partialMaintenanceMode:any* stateEncryption:any?
HostHardwareSummary: vendor model family? uuid otherIdentifyingInfo:any* memorySize:long cpuModel cpuMhz:int
  numCpuPkgs:short numCpuCores:short numCpuThreads:short numNics:int numHBAs:int
HostListSummaryQuickStats: overallCpuUsage:int? overallMemoryUsage:int? distributedCpuFairness:int?
  distributedMemoryFairness:int? availablePMemCapacity:int? uptime:int?
NetworkSummary: network:ref? name accessible:boolean ipPoolName ipPoolId:int?
ComputeResourceSummary: totalCpu:int totalMemory:long numCpuCores:short numCpuThreads:short effectiveCpu:int
  effectiveMemory:long numHosts:int numEffectiveHosts:int overallStatus:ManagedEntityStatus
ClusterComputeResourceSummary < ComputeResourceSummary: currentFailoverLevel:int admissionControlInfo:any?
  numVmotions:int targetBalance:int? currentBalance:int? drsScore:int? numVmsPerDrsScoreBucket:int*
  usageSummary:any? currentEVCModeKey? currentEVCGraphicsModeKey? dasData:any? clusterMaintenanceModeStatus?
  vcsHealthStatus? vcsSlots:any*
NoPermission: object:ref? privilegeId? missingPrivileges:any*
NotAuthenticated < NoPermission:
InvalidArgument: invalidProperty?
FileFault: file
TaskInProgress: task:ref
InvalidProperty: name
ManagedObjectNotFound: obj:ref
InvalidDeviceSpec < InvalidVmConfig: deviceIndex:int
InvalidPowerState: requestedState:VirtualMachinePowerState? existingState:VirtualMachinePowerState
InvalidVmConfig: property?
InvalidName: name entity:ref?
GenericVmConfigFault: reason
ExtensibleManagedObject: value:any* availableField:any*
ManagedEntity < ExtensibleManagedObject: parent:ref? customValue:any* overallStatus:ManagedEntityStatus?
  configStatus:ManagedEntityStatus? configIssue:Event* effectiveRole:int* permission:any* name? disabledMethod*
  recentTask:ref* declaredAlarmState:any* triggeredAlarmState:any* alarmActionsEnabled:boolean? tag:any*
Folder < ManagedEntity: childType* childEntity:ref* namespace?
Datacenter < ManagedEntity: vmFolder:ref? hostFolder:ref? datastoreFolder:ref? networkFolder:ref? datastore:ref*
  network:ref* configuration:any?
ComputeResource < ManagedEntity: resourcePool:ref? host:ref* datastore:ref* network:ref*
  summary:ComputeResourceSummary? environmentBrowser:ref? configurationEx:any? lifecycleManaged:boolean?
ClusterComputeResource < ComputeResource: configuration:any? recommendation:any* drsRecommendation:any*
  hciConfig:any? migrationHistory:any* actionHistory:any* drsFault:any*
ResourcePool < ManagedEntity: summary:any? runtime:any? owner:ref? resourcePool:ref* vm:ref* config:any? namespace?
  childConfiguration:any*
HostSystem < ManagedEntity: runtime:HostRuntimeInfo? summary:HostListSummary? hardware:any? capability:any?
  licensableResource:any? remediationState:any? precheckRemediationResult:any? remediationResult:any?
  complianceCheckState:any? complianceCheckResult:any? configManager:any? config:any? vm:ref* datastore:ref*
  network:ref* datastoreBrowser:ref? systemResources:any? answerFileValidationState:any?
  answerFileValidationResult:any?
Datastore < ManagedEntity: info:any? summary:DatastoreSummary? host:DatastoreHostMount* vm:ref* browser:ref?
  capability:DatastoreCapability? iormConfiguration:any?
Network < ManagedEntity: summary:NetworkSummary? host:ref* vm:ref* name?
VirtualMachine < ManagedEntity: capability:VirtualMachineCapability? config:VirtualMachineConfigInfo? layout:any?
  layoutEx:VirtualMachineFileLayoutEx? storage:VirtualMachineStorageInfo? environmentBrowser:ref? resourcePool:ref?
  parentVApp:ref? resourceConfig:any? runtime:VirtualMachineRuntimeInfo? guest:GuestInfo?
  summary:VirtualMachineSummary? datastore:ref* network:ref* snapshot:VirtualMachineSnapshotInfo? rootSnapshot:ref*
  guestHeartbeatStatus:ManagedEntityStatus?
VirtualMachineSnapshot < ExtensibleManagedObject: config:VirtualMachineConfigInfo? childSnapshot:ref* vm:ref?
Task < ExtensibleManagedObject: info:TaskInfo?
ServiceInstance: serverClock:dateTime? capability:any? content:ServiceContent?
SessionManager: sessionList:UserSession* currentSession:UserSession? message? messageLocaleList*
  supportedLocaleList* defaultLocale?
View:
ManagedObjectView < View: view:ref*
ContainerView < ManagedObjectView: container:ref? type* recursive:boolean?
VirtualDeviceBackingInfo:
VirtualDeviceFileBackingInfo < VirtualDeviceBackingInfo: fileName datastore:ref? backingObjectId?
VirtualDeviceDeviceBackingInfo < VirtualDeviceBackingInfo: deviceName useAutoDetect:boolean?
ParaVirtualSCSIController < VirtualSCSIController:
VirtualLsiLogicController < VirtualSCSIController:
VirtualLsiLogicSASController < VirtualSCSIController:
VirtualBusLogicController < VirtualSCSIController:
VirtualSATAController < VirtualController:
VirtualAHCIController < VirtualSATAController:
VirtualNVMEController < VirtualController: sharedBus?
VirtualIDEController < VirtualController:
VirtualVmxnet < VirtualEthernetCard:
VirtualVmxnet3 < VirtualVmxnet: uptv2Enabled:boolean?
DatastoreInfo: name url freeSpace:long maxFileSize:long maxVirtualDiskCapacity:long? maxMemoryFileSize:long?
  timestamp:dateTime?
NasDatastoreInfo < DatastoreInfo: nas:HostNasVolume?
VmfsDatastoreInfo < DatastoreInfo: maxPhysicalRDMFileSize:long? maxVirtualRDMFileSize:long? vmfs:HostVmfsVolume?
HostFileSystemVolume: type name capacity:long
HostNasVolume < HostFileSystemVolume: remoteHost remotePath userName? remoteHostNames* securityType?
  protocolEndpoint:boolean?
HostVmfsVolume < HostFileSystemVolume: blockSizeMb:int blockSize:int? unmapGranularity:int? unmapPriority?
  unmapBandwidthSpec:any? maxBlocks:int majorVersion:int version uuid extent:HostScsiDiskPartition+
  vmfsUpgradable:boolean forceMountedInfo:any? ssd:boolean? local:boolean? scsiDiskType?
HostScsiDiskPartition: diskName partition:int
VirtualTPM < VirtualDevice:
StoragePod < Folder:
VirtualApp < ResourcePool: parentFolder:ref? parentVApp:ref?
DistributedVirtualSwitch < ManagedEntity: uuid? portgroup:ref*
VmwareDistributedVirtualSwitch < DistributedVirtualSwitch:
DistributedVirtualPortgroup < Network: key? portKeys*
OpaqueNetwork < Network:
PropertyCollector: filter:ref*
PropertyFilter: spec:PropertyFilterSpec? partialUpdates:boolean?
`;

interface TypeEntry {
  base: string | undefined;
  own: Field[];
}

const TYPES = parseDefinitions();
const allFields = new Map<string, Field[]>();

function parseDefinitions(): Map<string, TypeEntry> {
  const types = new Map<string, TypeEntry>();
  for (const entry of DEFINITIONS.trim().split(/\n(?=\S)/)) {
    const match = /^(\w+)(?: < (\w+))?:([\s\S]*)$/.exec(entry);
    assert(match?.[1] !== undefined, `definition ${entry.slice(0, 40)} is well-formed`);
    types.set(match[1], { base: match[2], own: parseFields(match[3] ?? '') });
  }
  return types;
}

export function isDataType(type: string): boolean {
  return TYPES.has(type);
}

/** All fields of a type in the order in which they stand on the wire. */
export function fieldsOf(type: string): readonly Field[] {
  const known = allFields.get(type);
  if (known) return known;
  const entry = TYPES.get(type);
  const fields = entry ? [...(entry.base === undefined ? [] : fieldsOf(entry.base)), ...entry.own] : [];
  allFields.set(type, fields);
  return fields;
}

/** Whether `type` is `ancestor` or derived from it. */
export function isKindOf(type: string, ancestor: string): boolean {
  for (let at: string | undefined = type; at !== undefined; at = TYPES.get(at)?.base) if (at === ancestor) return true;
  return false;
}
