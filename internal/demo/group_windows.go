package demo

import "syscall"

// ownGroup has a process begin a process group of its own: Control-C at the
// terminal is for the demo, which then stops its servers.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
