//! The lab: hosts in network namespaces with their own Open vSwitch, Git and image servers.
