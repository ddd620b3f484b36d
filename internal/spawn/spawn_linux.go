// Package spawn starts processes that end with the one that started them.
package spawn

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// spawner starts every process from one thread that lives as long as this
// process. The kernel sends the parent-death signal when the thread that
// started a child ends, and threads of Go's scheduler may end at any time.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// Start starts cmd so that it does not outlive this process, however that ends.
// It sets cmd.SysProcAttr.Pdeathsig.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	done := make(chan error)
	spawner() <- func() { done <- cmd.Start() }
	return <-done
}
