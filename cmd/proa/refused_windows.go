package main

import "golang.org/x/sys/windows"

// errRefused is what the system says where nothing listens on a port.
const errRefused = windows.WSAECONNREFUSED
