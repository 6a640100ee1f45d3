"""The properties of each OpenDSS class, in the order of its tables: abbreviations and positions follow it.

The letter is the kind: f number, i whole number, b yes or no, s text, a numbers, l words, m matrix.
"""

from __future__ import annotations

TABLES = {
    "linecode": """
        NPhases:i R1:f X1:f R0:f X0:f C1:f C0:f Units:s RMatrix:m XMatrix:m CMatrix:m BaseFreq:f NormAmps:f
        EmergAmps:s FaultRate:s PctPerm:s Repair:s Kron:b Rg:f Xg:f rho:f Neutral:i B1:f B0:f Seasons:s
        Ratings:s LineType:s Like:s
    """,
    "wiredata": """
        RDC:f RAC:f RUnits:s GMRAC:f GMRUnits:s Radius:f RadUnits:s NormAmps:s EmergAmps:s Diam:f Seasons:s
        Ratings:s CapRadius:f Like:s
    """,
    "cndata": """
        k:i DiaStrand:f GMRStrand:f RStrand:f EpsR:f InsLayer:f DiaIns:f DiaCable:f RDC:f RAC:f RUnits:s
        GMRAC:f GMRUnits:s Radius:f RadUnits:s NormAmps:s EmergAmps:s Diam:f Seasons:s Ratings:s CapRadius:f
        Like:s
    """,
    "tsdata": """
        DiaShield:f TapeLayer:f TapeLap:f EpsR:f InsLayer:f DiaIns:f DiaCable:f RDC:f RAC:f RUnits:s GMRAC:f
        GMRUnits:s Radius:f RadUnits:s NormAmps:s EmergAmps:s Diam:f Seasons:s Ratings:s CapRadius:f Like:s
    """,
    "linespacing": """
        NConds:i NPhases:i X:a H:a Units:s Like:s
    """,
    "linegeometry": """
        NConds:i NPhases:i Cond:i Wire:s X:f H:f Units:s NormAmps:s EmergAmps:s Reduce:b Spacing:s Wires:l
        CNCable:s TSCable:s CNCables:l TSCables:l Seasons:s Ratings:s LineType:s Like:s
    """,
    "xfmrcode": """
        Phases:i Windings:i Wdg:i Conn:s kV:f kVA:f Tap:f %R:f RNeut:f XNeut:f Conns:l kVs:a kVAs:a Taps:a
        XHL:f XHT:f XLT:f XSCArray:a Thermal:s n:s m:s FLRise:s HSRise:s %LoadLoss:f %NoLoadLoss:f NormHkVA:s
        EmergHkVA:s MaxTap:f MinTap:f NumTaps:i %IMag:f ppm_Antifloat:f %Rs:a X12:f X13:f X23:f RDCOhms:s
        Seasons:s Ratings:s Like:s
    """,
    "line": """
        Bus1:s Bus2:s LineCode:s Length:f Phases:i R1:f X1:f R0:f X0:f C1:f C0:f RMatrix:m XMatrix:m CMatrix:m
        Switch:b Rg:f Xg:f rho:f Geometry:s Units:s Spacing:s Wires:l EarthModel:s CNCables:l TSCables:l B1:f
        B0:f Seasons:s Ratings:s LineType:s NormAmps:f EmergAmps:s FaultRate:s pctPerm:s Repair:s BaseFreq:f
        Enabled:b Like:s
    """,
    "vsource": """
        Bus1:s BasekV:f pu:f Angle:f Frequency:f Phases:i MVASC3:f MVASC1:f X1R1:f X0R0:f Isc3:f Isc1:f R1:f
        X1:f R0:f X0:f ScanType:s Sequence:s Bus2:s Z1:a Z0:a Z2:a puZ1:a puZ0:a puZ2:a BaseMVA:f Yearly:s
        Daily:s Duty:s Model:i puZIdeal:s Spectrum:s BaseFreq:f Enabled:b Like:s
    """,
    "load": """
        Phases:i Bus1:s kV:f kW:f PF:f Model:i Yearly:s Daily:s Duty:s Growth:s Conn:s kvar:f RNeut:f XNeut:f
        Status:s Class:s VMinpu:f VMaxpu:f VMinNorm:s VMinEmerg:s XfkVA:f AllocationFactor:f kVA:f %Mean:s
        %StdDev:s CVRWatts:f CVRVars:f kWh:f kWhDays:f CFactor:f CVRCurve:s NumCust:s ZIPV:a %SeriesRL:f
        RelWeight:s VLowpu:f puXHarm:s XRHarm:s Spectrum:s BaseFreq:f Enabled:b Like:s
    """,
    "transformer": """
        Phases:i Windings:i Wdg:i Bus:s Conn:s kV:f kVA:f Tap:f %R:f RNeut:f XNeut:f Buses:l Conns:l kVs:a
        kVAs:a Taps:a XHL:f XHT:f XLT:f XSCArray:a Thermal:s n:s m:s FLRise:s HSRise:s %LoadLoss:f
        %NoLoadLoss:f NormHkVA:s EmergHkVA:s Sub:b MaxTap:f MinTap:f NumTaps:i SubName:s %IMag:f
        ppm_Antifloat:f %Rs:a Bank:s XfmrCode:s XRConst:s X12:f X13:f X23:f LeadLag:s WdgCurrents:s Core:s
        RDCOhms:s Seasons:s Ratings:s NormAmps:s EmergAmps:s FaultRate:s pctPerm:s Repair:s BaseFreq:f
        Enabled:b Like:s
    """,
    "autotrans": """
        Phases:i Windings:i Wdg:i Bus:s Conn:s kV:f kVA:f Tap:f %R:f RDCOhms:s Core:s Buses:l Conns:l kVs:a
        kVAs:a Taps:a XHX:f XHT:f XXT:f XSCArray:a Thermal:s n:s m:s FLRise:s HSRise:s %LoadLoss:f
        %NoLoadLoss:f NormHkVA:s EmergHkVA:s Sub:b MaxTap:f MinTap:f NumTaps:i SubName:s %IMag:f
        ppm_Antifloat:f %Rs:a Bank:s XRConst:s LeadLag:s WdgCurrents:s NormAmps:s EmergAmps:s FaultRate:s
        pctPerm:s Repair:s BaseFreq:f Enabled:b Like:s
    """,
    "regcontrol": """
        Transformer:s Winding:i VReg:f Band:f PTRatio:f CTPrim:f R:f X:f Bus:s Delay:f Reversible:b RevVReg:s
        RevBand:s RevR:s RevX:s TapDelay:f DebugTrace:s MaxTapChange:i InverseTime:b TapWinding:i VLimit:f
        PTPhase:s RevThreshold:s RevDelay:s RevNeutral:s EventLog:s RemotePTRatio:f TapNum:i Reset:s LDC_Z:f
        Rev_Z:s Cogen:b BaseFreq:f Enabled:b Like:s
    """,
    "capacitor": """
        Bus1:s Bus2:s Phases:i kvar:a kV:f Conn:s CMatrix:m Cuf:a R:a XL:a Harm:a NumSteps:i States:a
        NormAmps:s EmergAmps:s FaultRate:s pctPerm:s Repair:s BaseFreq:f Enabled:b Like:s
    """,
    "capcontrol": """
        Element:s Terminal:i Capacitor:s Type:s PTRatio:f CTRatio:f OnSetting:f OffSetting:f Delay:f
        VoltOverride:b VMax:f VMin:f DelayOff:f DeadTime:f CTPhase:s PTPhase:s VBus:s EventLog:s UserModel:s
        UserData:s pctMinkvar:s Reset:s ControlSignal:s BaseFreq:f Enabled:b Like:s
    """,
    "reactor": """
        Bus1:s Bus2:s Phases:i kvar:f kV:f Conn:s RMatrix:m XMatrix:m Parallel:b R:f X:f Rp:f Z1:a Z2:a Z0:a
        Z:a RCurve:s LCurve:s LmH:f NormAmps:s EmergAmps:s FaultRate:s pctPerm:s Repair:s BaseFreq:f Enabled:b
        Like:s
    """,
    "generator": """
        Phases:i Bus1:s kV:f kW:f PF:f kvar:f Model:i VMinpu:f VMaxpu:f Yearly:s Daily:s Duty:s DispMode:s
        DispValue:s Conn:s Status:s Class:s Vpu:s Maxkvar:s Minkvar:s PVFactor:s ForceOn:s kVA:f MVA:f Xd:s
        Xdp:s Xdpp:s H:f D:s UserModel:s UserData:s ShaftModel:s ShaftData:s DutyStart:s DebugTrace:s
        Balanced:s XRdp:s UseFuel:s FuelkWh:s %Fuel:s %Reserve:s Refuel:s DynamicEq:s DynOut:s Spectrum:s
        BaseFreq:f Enabled:b Like:s
    """,
    "pvsystem": """
        Phases:i Bus1:s kV:f Irradiance:f Pmpp:f %Pmpp:f Temperature:f PF:f Conn:s kvar:f kVA:f %CutIn:f
        %CutOut:f EffCurve:s P-TCurve:s %R:f %X:s Model:i VMinpu:f VMaxpu:f Balanced:s LimitCurrent:s Yearly:s
        Daily:s Duty:s TYearly:s TDaily:s TDuty:s Class:s UserModel:s UserData:s DebugTrace:s
        VarFollowInverter:b DutyStart:s WattPriority:b PFPriority:b %PMinNoVars:f %PMinkvarMax:f kvarMax:f
        kvarMaxAbs:f kVDC:s Kp:s PITol:s SafeVoltage:s SafeMode:s DynamicEq:s DynOut:s ControlMode:s
        AmpLimit:s AmpLimitGain:s Spectrum:s BaseFreq:f Enabled:b Like:s
    """,
    "storage": """
        Phases:i Bus1:s kV:f Conn:s kW:f kvar:f PF:f kVA:f %CutIn:f %CutOut:f EffCurve:s VarFollowInverter:b
        kvarMax:f kvarMaxAbs:f WattPriority:b PFPriority:b %PMinNoVars:f %PMinkvarMax:f kWRated:f %kWRated:f
        kWhRated:f kWhStored:f %Stored:f %Reserve:f State:s %Discharge:f %Charge:f %EffCharge:s
        %EffDischarge:s %IdlingkW:f %Idlingkvar:f %R:f %X:s Model:i VMinpu:f VMaxpu:f Balanced:s
        LimitCurrent:s Yearly:s Daily:s Duty:s DispMode:s DischargeTrigger:s ChargeTrigger:s TimeChargeTrig:s
        Class:s DynaDLL:s DynaData:s UserModel:s UserData:s DebugTrace:s kVDC:s Kp:s PITol:s SafeVoltage:s
        SafeMode:s DynamicEq:s DynOut:s ControlMode:s AmpLimit:s AmpLimitGain:s Spectrum:s BaseFreq:f
        Enabled:b Like:s
    """,
    "loadshape": """
        NPts:i Interval:f Mult:a Hour:a Mean:s StdDev:s CSVFile:s SngFile:s DblFile:s Action:s QMult:a
        UseActual:b PMax:s QMax:s SInterval:f MInterval:f PBase:f QBase:f PMult:a PQCSVFile:s MemoryMapping:s
        Interpolation:s Like:s
    """,
    "xycurve": """
        NPts:i Points:a YArray:a XArray:a CSVFile:s SngFile:s DblFile:s X:f Y:s XShift:s YShift:s XScale:s
        YScale:s Like:s
    """,
    "swtcontrol": """
        SwitchedObj:s SwitchedTerm:i Action:l Lock:b Delay:s Normal:l State:l Reset:s BaseFreq:s
        Enabled:b Like:s
    """,
    "fuse": """
        MonitoredObj:s MonitoredTerm:i SwitchedObj:s SwitchedTerm:i FuseCurve:s RatedCurrent:s Delay:s
        Action:l Normal:l State:l BaseFreq:s Enabled:b Like:s
    """,
    "relay": """
        MonitoredObj:s MonitoredTerm:i SwitchedObj:s SwitchedTerm:i Type:s PhaseCurve:s GroundCurve:s
        PhaseTrip:s GroundTrip:s TDPhase:s TDGround:s PhaseInst:s GroundInst:s Reset:s Shots:s
        RecloseIntervals:s Delay:s OvervoltCurve:s UndervoltCurve:s kVBase:s 47%Pickup:s 46BaseAmps:s
        46%Pickup:s 46isqt:s Variable:s Overtrip:s Undertrip:s BreakerTime:s Action:l Z1Mag:s Z1Ang:s
        Z0Mag:s Z0Ang:s MPhase:s MGround:s EventLog:s DebugTrace:s DistReverse:s Normal:l State:l
        DOC_TiltAngleLow:s DOC_TiltAngleHigh:s DOC_TripSettingLow:s DOC_TripSettingHigh:s
        DOC_TripSettingMag:s DOC_DelayInner:s DOC_PhaseCurveInner:s DOC_PhaseTripInner:s
        DOC_TDPhaseInner:s DOC_P1Blocking:s BaseFreq:s Enabled:b Like:s
    """,
    "recloser": """
        MonitoredObj:s MonitoredTerm:i SwitchedObj:s SwitchedTerm:i NumFast:s PhaseFast:s PhaseDelayed:s
        GroundFast:s GroundDelayed:s PhaseTrip:s GroundTrip:s PhaseInst:s GroundInst:s Reset:s Shots:s
        RecloseIntervals:s Delay:s Action:l TDPhFast:s TDGrFast:s TDPhDelayed:s TDGrDelayed:s Normal:l
        State:l BaseFreq:s Enabled:b Like:s
    """,
}
