package config

import "github.com/spf13/pflag"

const (
	flagConfig = "config"
	flagSet    = "set"
)

// AddFlags adds the flags of the configuration to set: --config, --set, and those
// of the table of keys. They are all read as text; Load checks them.
func AddFlags(set *pflag.FlagSet) {
	set.String(flagConfig, "", "configuration `file` (YAML); also "+EnvFile)
	set.StringArray(flagSet, nil, "set any configuration `key=value`; repeatable")
	for _, k := range new(Config).keys() {
		if k.flag == "" {
			continue
		}
		usage := k.usage
		if k.fallback != "" {
			usage += " (default " + k.fallback + ")"
		}
		set.String(k.flag, "", usage)
	}
}
