// A worker that lies. It has a certificate of its own and is let in; what it then says is wrong:
// under another's name, of leases and units that are not its own, with seeds, epochs, counts and
// sizes that cannot be. Every sample it sends has a wrong answer in it, so one that is believed
// shows in the comparison too.
//
// What no coordinator can notice is left out: a wrong answer to a unit that the liar does hold,
// under its own lease and epoch, with the right seed and possible counts.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/chaos/chaos_system.h"

namespace assay::chaos {

// What it says of units of other workers that it calls failed; nothing stored may ever hold it.
inline constexpr char kLiarsFailure[] = "the liar says that this unit is poison";

struct Lies {
  std::map<std::string, int> refused;  // by what the lie was
  std::vector<std::string> believed;   // those that were not refused as they must be
  bool told_all = false;               // some need a lease of its own and one of another worker
};

// One visit, from Hello to the report under a lease that it lost long ago: some seconds. Every
// other program should be up.
Lies TellLies(ChaosSystem* system);

}  // namespace assay::chaos
