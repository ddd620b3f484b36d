// Package workdir has the process be in a directory where nobody can put files while
// dragonboat is initialized.
//
// dragonboat reads its settings, dragonboat-hard-settings.json and
// dragonboat-soft-settings.json, from the working directory before main begins. It takes
// what it finds for the operator's, and panics at what is no JSON of the kind it wants, or
// may not be read. So anybody who may write to a directory could change, or keep from
// starting, each command of a program that is run there, and a user could run none in a
// directory that is closed to them.
//
// The order is the language's ("Program initialization"): of the packages whose imports
// are initialized, the first by path is the next. This one imports nothing but syscall, so
// it comes before os, which dragonboat's settings import. A package that imports both this
// one and dragonboat calls Return when it is initialized itself. In between no package
// may open files by relative names.
package workdir

import "syscall"

// pathOnly is O_PATH: nothing but to go back there is wanted, which needs no permission to
// read.
const pathOnly = 0x200000

// origin is the descriptor of the directory in which the process was; -1 if it stays where
// it is.
var origin = leave()

func leave() int {
	fd, err := syscall.Open(".", pathOnly|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		// The directory is closed to this user. Relative names fail there, and so they
		// do in the root directory.
		_ = syscall.Chdir("/")
		return -1
	}
	if syscall.Chdir("/proc") != nil { // where even root makes no files
		_ = syscall.Chdir("/")
	}
	return fd
}

// Return goes back to where the process was.
func Return() error {
	if origin < 0 {
		return nil
	}
	err := syscall.Fchdir(origin)
	_ = syscall.Close(origin)
	origin = -1
	return err
}
