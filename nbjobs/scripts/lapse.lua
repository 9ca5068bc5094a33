#!lua flags=allow-oom
-- 5 owner ('' from the sweeper)  6 max_crashes  7 crash_wait 'ms,ms,ms'  8 d  9 earliest  10 latest (that it may be, for a sweeper)
local LONG_QUEUED = 600000      -- ms: a run that was found in the queue for long is looked at less often
local LOOK_AGAIN = 1000
if gone then
  look_at(nil)
  redis.call('ZREM', KEYS[5], id)
  return answer('GONE')
end
if larger(8, MAX_EVENT) then return larger(8, MAX_EVENT) end
if larger(7, MAX_NAME) then return larger(7, MAX_NAME) end
local function extra(field) return num(redis.call('HGET', KEYS[1], field)) end
local earliest = math.min(now, ARGV[9] and num(ARGV[9]) or now)
local latest = math.max(now, ARGV[10] and num(ARGV[10]) or now)
if ARGV[5] ~= '' then
  if not holds(ARGV[5]) then return answer(run.last_owner == ARGV[5] and 'AGAIN' or 'FENCED') end
elseif run.owner == '' then                      -- the sweeper's look at a run that nobody holds: `due` is put right
  if END[run.state] or run.state == 'paused' then
    look_at(nil)
    return answer('NONE')
  end
  local at, wait = num(run.at), extra('wait')
  if wait > 0 and at > latest + wait then        -- the clock was set back since: the wait begins again
    at = now + wait
    put('at', int(at))
    save()
  end
  if at > now then
    look_at(at)
    return answer('EARLY')
  end
  look_at(now + math.max(LOST_WAKE_UP, math.min(now - num(run.last_id:match('^%d+')), LONG_QUEUED)))
  return answer('QUEUE')
else                                             -- at a run that is held: who lives has renewed its lease
  local ends, length = num(run.lease_until), extra('lease_ms')
  local impossible = length > 0 and ends > latest + 2 * length   -- given before the clock was set back
  if ends > earliest and not impossible then
    look_at(ends > now and ends or now + LOOK_AGAIN)
    return answer('HELD')
  end
end

local control = run.control
local function interrupted(state, event, time)   -- job.interrupt comes first, always
  entry('job.interrupt', ARGV[8], state)
  if event then entry(event, '', state) end
  become(state, time)
  return answer('OK')
end
put('last_owner', run.owner)
put('owner', '')
put('control', '')
if control == 'cancel' or control == 'now' then return interrupted('cancelled', 'job.cancelled') end
if control == 'pause' then return interrupted('paused') end

add('crashes', 1)
if num(run.crashes) > num(ARGV[6]) then return interrupted('dead', 'job.dead') end
local waits = {}
for ms in ARGV[7]:gmatch('%d+') do waits[#waits + 1] = num(ms) end
local wait = waits[math.min(num(run.crashes), #waits)] or 0
if wait == 0 then return interrupted('queued', nil, now + PUT_BACK) end
put('at', int(now + wait))
put('wait', int(wait))
return interrupted('retrying', 'job.retry_scheduled', now + wait)
