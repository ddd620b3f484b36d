//go:build !linux && !darwin

package config

func memoryBytes() int64 { return 0 }
