#!lua
-- 5 owner  6 lease_ms  7.. a checkpoint
if gone then return answer('GONE') end
local new = checkpoint(7)
if not holds(ARGV[5]) then return answer('FENCED') end
if new.c == run.c then return answer('AGAIN') end
if num(new.c) ~= num(run.c) + 1 then return answer('ORDER') end
local refusal = oversize(new)
if refusal then return refusal end

apply(new)
lease(ARGV[6])
save()
return answer('OK')
