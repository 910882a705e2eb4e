package perf

import (
	"math"
	"strconv"
)

// An objectID is the index of an object in objects. Samplers run in this
// order: what may have to wait comes last.
type objectID int

const (
	processorObject objectID = iota
	memoryObject
	networkObject
	physicalDiskObject
	systemObject
	processObject
	logicalDiskObject
	objectCount
)

// A counterSet has bit 1<<n for counter n of one object.
type counterSet uint16

// maxCounters is the most that an object has.
const maxCounters = 16

// A counter is one measured value, named as in the Perf table.
type counter struct {
	name  string
	unit  unit
	alias string // another name that specifiers use for it
}

// An object is a kind of thing with counters.
type object struct {
	name     string
	aliases  []string // what Windows calls it
	counters []counter
}

// all is the set of every counter of the object.
func (o *object) all() counterSet { return 1<<len(o.counters) - 1 }

// Counters by their index in the object's list.
const (
	cpuProcessor = iota
	cpuIdle
	cpuUser
	cpuNice
	cpuPrivileged
	cpuIOWait
	cpuInterrupt
	cpuDPC
	cpuSteal
)

const (
	memAvailable = iota
	memAvailablePercent
	memUsed
	memUsedPercent
	memPages
	memPageReads
	memPageWrites
	memSwapAvailable
	memSwapUsed
	memSwapAvailablePercent
	memSwapUsedPercent
)

const (
	netSentBytes = iota
	netReceivedBytes
	netBytes
	netSentPackets
	netReceivedPackets
	netReceiveErrors
	netSendErrors
	netCollisions
)

const (
	physicalBytes = iota
	physicalReadTime
	physicalWriteTime
	physicalTransferTime
)

const (
	systemProcesses = iota
	systemUsers
	systemUniqueUsers
	systemCPUs
	systemFreePhysical
	systemFreeVirtual
	systemPagingSize
	systemPagingFree
	systemUptime
	systemLoad1
	systemLoad5
	systemLoad15
)

const (
	processUser = iota
	processPrivileged
	processMemory
	processShared
)

const (
	logicalFreeInodes = iota
	logicalUsedInodes
	logicalFreeMegabytes
	logicalFreeSpace
	logicalUsedSpace
	logicalReads
	logicalWrites
	logicalTransfers
	logicalReadBytes
	logicalWriteBytes
	logicalBytes
)

// objects is everything that can be collected. Names are those of the Perf
// table as the OMS agent for Linux fills it, with the counters that the Azure
// Monitor Agent added to System (CPUs, Unique Users, Load1, Load5, Load15) and
// the time that the hypervisor took from a processor (% Steal Time).
// The aliases let rules in the Windows spelling mean what they say here.
var objects = [objectCount]object{
	processorObject: {"Processor", []string{"Processor Information"}, []counter{
		cpuProcessor:  {name: "% Processor Time", unit: percent},
		cpuIdle:       {name: "% Idle Time", unit: percent},
		cpuUser:       {name: "% User Time", unit: percent},
		cpuNice:       {name: "% Nice Time", unit: percent},
		cpuPrivileged: {name: "% Privileged Time", unit: percent},
		cpuIOWait:     {name: "% IO Wait Time", unit: percent},
		cpuInterrupt:  {name: "% Interrupt Time", unit: percent},
		cpuDPC:        {name: "% DPC Time", unit: percent},
		cpuSteal:      {name: "% Steal Time", unit: percent},
	}},
	memoryObject: {"Memory", nil, []counter{
		memAvailable:            {name: "Available MBytes Memory", unit: megabytes, alias: "Available MBytes"},
		memAvailablePercent:     {name: "% Available Memory", unit: percent},
		memUsed:                 {name: "Used Memory MBytes", unit: megabytes},
		memUsedPercent:          {name: "% Used Memory", unit: percent},
		memPages:                {name: "Pages/sec", unit: perSecond},
		memPageReads:            {name: "Page Reads/sec", unit: perSecond},
		memPageWrites:           {name: "Page Writes/sec", unit: perSecond},
		memSwapAvailable:        {name: "Available MBytes Swap", unit: megabytes},
		memSwapUsed:             {name: "Used MBytes Swap Space", unit: megabytes},
		memSwapAvailablePercent: {name: "% Available Swap Space", unit: percent},
		memSwapUsedPercent:      {name: "% Used Swap Space", unit: percent},
	}},
	networkObject: {"Network", []string{"Network Interface", "Network Adapter"}, []counter{
		netSentBytes:       {name: "Total Bytes Transmitted", unit: count},
		netReceivedBytes:   {name: "Total Bytes Received", unit: count},
		netBytes:           {name: "Total Bytes", unit: count},
		netSentPackets:     {name: "Total Packets Transmitted", unit: count},
		netReceivedPackets: {name: "Total Packets Received", unit: count},
		netReceiveErrors:   {name: "Total Rx Errors", unit: count, alias: "Packets Received Errors"},
		netSendErrors:      {name: "Total Tx Errors", unit: count, alias: "Packets Outbound Errors"},
		netCollisions:      {name: "Total Collisions", unit: count},
	}},
	physicalDiskObject: {"Physical Disk", []string{"PhysicalDisk"}, []counter{
		physicalBytes:        {name: "Physical Disk Bytes/sec", unit: perSecond, alias: "Disk Bytes/sec"},
		physicalReadTime:     {name: "Avg. Disk sec/Read", unit: seconds},
		physicalWriteTime:    {name: "Avg. Disk sec/Write", unit: seconds},
		physicalTransferTime: {name: "Avg. Disk sec/Transfer", unit: seconds},
	}},
	systemObject: {"System", nil, []counter{
		systemProcesses:    {name: "Processes", unit: count},
		systemUsers:        {name: "Users", unit: count},
		systemUniqueUsers:  {name: "Unique Users", unit: count},
		systemCPUs:         {name: "CPUs", unit: count},
		systemFreePhysical: {name: "Free Physical Memory", unit: count},
		systemFreeVirtual:  {name: "Free Virtual Memory", unit: count},
		systemPagingSize:   {name: "Size Stored In Paging Files", unit: count},
		systemPagingFree:   {name: "Free Space in Paging Files", unit: count},
		systemUptime:       {name: "Uptime", unit: count, alias: "System Up Time"},
		systemLoad1:        {name: "Load1", unit: load},
		systemLoad5:        {name: "Load5", unit: load},
		systemLoad15:       {name: "Load15", unit: load},
	}},
	processObject: {"Process", nil, []counter{
		processUser:       {name: "Pct User Time", unit: percentOfOne, alias: "% User Time"},
		processPrivileged: {name: "Pct Privileged Time", unit: percentOfOne, alias: "% Privileged Time"},
		processMemory:     {name: "Used Memory kBytes", unit: count, alias: "Used Memory"},
		processShared:     {name: "Virtual Shared Memory", unit: count},
	}},
	logicalDiskObject: {"Logical Disk", []string{"LogicalDisk"}, []counter{
		logicalFreeInodes:    {name: "% Free Inodes", unit: percent},
		logicalUsedInodes:    {name: "% Used Inodes", unit: percent},
		logicalFreeMegabytes: {name: "Free Megabytes", unit: megabytesUp},
		logicalFreeSpace:     {name: "% Free Space", unit: percent},
		logicalUsedSpace:     {name: "% Used Space", unit: percent},
		logicalReads:         {name: "Disk Reads/sec", unit: perSecond},
		logicalWrites:        {name: "Disk Writes/sec", unit: perSecond},
		logicalTransfers:     {name: "Disk Transfers/sec", unit: perSecond},
		logicalReadBytes:     {name: "Disk Read Bytes/sec", unit: perSecond},
		logicalWriteBytes:    {name: "Disk Write Bytes/sec", unit: perSecond},
		logicalBytes:         {name: "Logical Disk Bytes/sec", unit: perSecond, alias: "Disk Bytes/sec"},
	}},
}

// A unit says how a value is rounded.
type unit uint8

const (
	count        unit = iota // a whole number: things, kB, seconds of uptime
	percent                  // a share of a whole, 0 to 100
	percentOfOne             // of one processor: more than 100 for a busy threaded process
	megabytes                // of 1,048,576 bytes
	megabytesUp              // the same, where whole megabytes round up
	perSecond
	seconds
	load
)

// appendValue appends v as text. Precise values have two decimals, seconds
// have six. Integer-compatible values are the whole numbers that the OMS agent
// for Linux gives: percentages half up and at most 100, the rest rounded down
// unless the unit says otherwise; seconds and load are fractions there too.
func (u unit) appendValue(dst []byte, v float64, integer bool) []byte {
	switch u {
	case count:
		v = math.Floor(v)
	case percent:
		v = min(max(v, 0), 100)
		v = choose(integer, math.Floor(v+0.5), hundredths(v))
	case percentOfOne:
		v = choose(integer, min(math.Floor(v+0.5), 100), hundredths(v))
	case megabytes, perSecond:
		v = choose(integer, math.Floor(v), hundredths(v))
	case megabytesUp:
		v = choose(integer, math.Ceil(v), hundredths(v))
	case seconds:
		v = math.Round(v*1e6) / 1e6
	case load:
		v = hundredths(v)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, 64)
}

func hundredths(v float64) float64 { return math.Round(v*100) / 100 }

func choose(first bool, a, b float64) float64 {
	if first {
		return a
	}
	return b
}
